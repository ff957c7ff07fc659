package start

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
)

// room refuses a capture of processes that the store cannot take, before the program stands still
// for it. What is written beside the program's memory is not foreseen: then the
// disk is full in the middle, and the capture fails without a trace.
func (i *Init) room(pids []int) error {
	var need int64
	for _, pid := range pids {
		need += memoryOf(pid)
	}
	st, limits := i.starter.Store, i.config.Limits.Retain()
	free, err := st.Room()
	if err != nil {
		return err
	}
	if need > free {
		return fmt.Errorf("the task holds %s of memory, and the file system of %s has room for %s: make room, for example with `snapctl prune` or `snapctl rm`: %w",
			mebibytes(need), st.Root(), mebibytes(free), errdefs.ErrResourceExhausted)
	}
	if limits.MaxBytes == 0 {
		return nil
	}
	pinned, err := pinnedBytes(st)
	if err != nil {
		return err
	}
	if need > limits.MaxBytes-pinned {
		return fmt.Errorf("the task holds %s of memory, and limits.max_bytes allows the store %s, of which %s are pinned: raise it, or `snapctl unpin` something: %w",
			mebibytes(need), mebibytes(limits.MaxBytes), mebibytes(pinned), errdefs.ErrResourceExhausted)
	}
	return nil
}

func pinnedBytes(st *store.Store) (int64, error) {
	entries, err := st.List()
	var pinned checkpoint.Usage
	for _, e := range entries {
		if e.State.Pinned {
			pinned.Add(&e.Checkpoint)
		}
	}
	return pinned.Bytes(), err
}

// memoryOf returns what CRIU will write of a process's memory, more or less: its part
// of what no file backs. It is 0 for one that is gone.
func memoryOf(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0
	}
	return parseRollup(text)
}

func parseRollup(text []byte) int64 {
	var kib int64
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 2 {
			continue
		}
		switch string(fields[0]) {
		case "Pss_Anon:", "Pss_Shmem:", "SwapPss:":
			if n, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil && n > 0 {
				kib += min(n, 1<<50-kib) // as much as no machine has
			}
		}
	}
	return kib << 10
}

func mebibytes(n int64) string { return strconv.FormatInt(n>>20, 10) + " MiB" }
