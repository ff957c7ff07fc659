package start

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/shim/rootfs"
)

// nameDeleted gives files in use that were deleted, and have other names, in the captured
// layer the names by which CRIU wants to find them. In the container's own CRIU has
// taken those back. The task stands still.
func (i *Init) nameDeleted(l *live, images, diff string) error {
	links, err := criu.LinkRemaps(images)
	if err != nil || len(links) == 0 {
		return err
	}
	pids, err := hostPIDs(l)
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.External != "" {
			return fmt.Errorf("the open file %s was deleted and has other names, on the mount %s, which is no part of a checkpoint: let the program close it, and capture then: %w",
				link.Path, link.External, errdefs.ErrFailedPrecondition)
		}
		file := fmt.Sprintf("/proc/%d/%s", pids[link.PID], link.Link)
		if err := rootfs.AddName(diff, l.p.PID(), file, link.Name); err != nil {
			return err
		}
	}
	return nil
}

// hostPIDs returns the pids of the container's processes by those that they have inside.
func hostPIDs(l *live) (map[int]int, error) {
	pids, err := l.c.PIDs()
	if err != nil {
		return nil, err
	}
	inside := map[int]int{}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return nil, err
		}
		_, rest, _ := bytes.Cut(status, []byte("\nNSpid:"))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		if numbers := bytes.Fields(line); len(numbers) > 0 {
			if n, err := strconv.Atoi(string(numbers[len(numbers)-1])); err == nil {
				inside[n] = pid
			}
		}
	}
	return inside, nil
}
