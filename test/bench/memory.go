package main

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
)

// treeOf are a process and all that descend from it.
func treeOf(pid int) []int {
	tree := []int{pid}
	all, err := harness.Processes()
	if err != nil {
		return tree
	}
	for more := true; more; {
		more = false
		for _, p := range all {
			if slices.Contains(tree, p.PPID) && !slices.Contains(tree, p.PID) {
				tree, more = append(tree, p.PID), true
			}
		}
	}
	return tree
}

// usageOf is what the processes hold together. One that has ended meanwhile holds nothing.
func usageOf(pids []int) (harness.Memory, error) {
	var sum harness.Memory
	for _, pid := range pids {
		m, err := harness.ReadMemory(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return sum, err
		}
		sum = sum.Plus(m)
	}
	return sum, nil
}

// nodeMemory is what /proc/meminfo says of the whole machine, in bytes (proc_meminfo(5)).
type nodeMemory struct {
	// used is what is neither free nor page cache, cache the page cache.
	used, cache int64
}

func readNodeMemory() (nodeMemory, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return nodeMemory{}, err
	}
	defer f.Close()
	v := map[string]int64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err == nil {
			v[key] = kib << 10
		}
	}
	cache := v["Cached"] + v["Buffers"]
	// Shared memory and tmpfs count as cached, and cannot be dropped.
	cache -= v["Shmem"]
	return nodeMemory{used: v["MemTotal"] - v["MemFree"] - cache - v["SReclaimable"], cache: cache}, nil
}
