package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/report"
)

// A store's file system is nearly full below minFree bytes or one part in minPart.
const (
	minFree = 1 << 30
	minPart = 20
)

// storeChecks judges the store and its entries.
func storeChecks(ctx context.Context, node Node, opts Options) ([]Check, error) {
	// To look at a store must not make one.
	if _, err := os.Stat(opts.Root); errors.Is(err, os.ErrNotExist) {
		return []Check{warning("store", "if containers of this runtime run already, its shims read another configuration: compare CONTAINERD_SNAP_CONFIG in containerd's environment",
			"%s does not exist yet; the runtime makes it when it starts its first container", opts.Root)}, nil
	}
	st, err := store.Open(opts.Root)
	if err != nil {
		return []Check{problem("store", "containers boot until the store can be opened", "%v", err)}, nil
	}
	checks := []Check{space(st.Root()), leftovers(st.Root())}
	entries, err := entryChecks(ctx, st, node, opts)
	return append(checks, entries...), err
}

func space(root string) Check {
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return problem("store", "look at its file system", "%s: %v", root, os.NewSyscallError("statfs", err))
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return problem("store", "remount it for writing, or set root in the configuration", "%s is on a read-only file system", root)
	}
	block := int64(fs.Bsize) //nolint:unconvert // its type depends on the architecture
	return judgeSpace(root, int64(fs.Bavail)*block, int64(fs.Blocks)*block)
}

func judgeSpace(root string, free, total int64) Check {
	if free < minFree || free < total/minPart {
		return warning("store", "remove checkpoints with `snapctl rm`, or give it more space", "%s: only %s of %s free", root, human.Bytes(free), human.Bytes(total))
	}
	return ok("store", "%s, %s of %s free", root, human.Bytes(free), human.Bytes(total))
}

// leftovers counts what killed processes left in the store. By the store's rules, what
// can be locked in these directories is abandoned. The lock is a shared one and
// given back at once: whoever is just making a draft notices and makes another.
func leftovers(root string) Check {
	n := 0
	for _, dir := range []string{"drafts", "trash", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if err != nil {
			return problem("leftovers", "look at the store's directory", "%v", err)
		}
		for _, e := range entries {
			if abandoned(filepath.Join(root, dir, e.Name())) {
				n++
			}
		}
	}
	if n == 0 {
		return ok("leftovers", "none")
	}
	return warning("leftovers", "the next capture deletes them", "%s of killed processes", human.Count(n, "leftover"))
}

func abandoned(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false // gone meanwhile
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil
}

// entryChecks has a finding for each checkpoint with which something is wrong, and one
// that counts the others.
func entryChecks(ctx context.Context, st *store.Store, node Node, opts Options) ([]Check, error) {
	entries, err := st.List()
	if err != nil {
		return []Check{problem("checkpoints", "look at the store's directory", "%v", err)}, nil
	}
	damaged, err := st.Damaged()
	if err != nil {
		return []Check{problem("checkpoints", "look at the store's directory", "%v", err)}, nil
	}
	var host *checkpoint.HostFacts
	if node.FactsErr == nil && node.CRIUErr == nil {
		host = &node.Facts
	}
	var checks []Check
	fine := 0
	var usage checkpoint.Usage
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		err := verify(ctx, st, e, opts)
		status, why := report.Status(e, host)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, checkpoint.ErrNotFound):
			continue // removed meanwhile
		case err != nil:
			checks = append(checks, broken(match.Ref(e), err))
			continue
		case status != report.Ready:
			checks = append(checks, warning("checkpoint", remedies[status](e), "%s is %s: %s%s", match.Ref(e), status, why, lastFailure(e)))
			continue
		}
		fine++
		usage.Add(&e.Checkpoint)
	}
	for _, d := range damaged {
		checks = append(checks, broken(d.Digest, d.Err))
	}
	checks = append(checks, pageChecks(entries)...)
	depth := "metadata verified"
	if opts.Verify {
		depth = "all data verified"
	}
	return append([]Check{ok("checkpoints", "%d ready, %s; %s", fine, human.Bytes(usage.Bytes()), depth)}, checks...), nil
}

// pageChecks says whether the kernel checks page data as it is read.
func pageChecks(entries []checkpoint.Entry) []Check {
	for _, e := range entries {
		for _, f := range e.Checkpoint.Files {
			var st unix.Statx_t
			if !f.Pages || unix.Statx(unix.AT_FDCWD, filepath.Join(e.Dir, "images", f.Path), unix.AT_SYMLINK_NOFOLLOW, 0, &st) != nil {
				continue
			}
			if st.Attributes&unix.STATX_ATTR_VERITY != 0 {
				return []Check{ok("fs-verity", "the kernel checks page data as it is read")}
			}
			return []Check{ok("fs-verity", "not on this file system: restores check page data by its size, and --verify by its content")}
		}
	}
	return nil
}

func verify(ctx context.Context, st *store.Store, e checkpoint.Entry, opts Options) error {
	if !opts.Verify {
		return st.VerifyMetadata(e)
	}
	var progress func(done, total int64)
	if opts.Progress != nil {
		progress = func(done, total int64) { opts.Progress(match.Ref(e), done, total) }
	}
	return st.Verify(ctx, e, progress)
}

func broken(ref string, err error) Check {
	return problem("checkpoint", fmt.Sprintf("remove it with `snapctl rm %s` and take it again", ref), "%s: %v", ref, err)
}

// remedies are those for the states that are not fine.
var remedies = map[string]func(checkpoint.Entry) string{
	report.Quarantined: func(e checkpoint.Entry) string {
		return fmt.Sprintf("when the cause is gone, clear it; or take it again and `snapctl rm %s`", match.Ref(e))
	},
	report.Failing: func(e checkpoint.Entry) string {
		return fmt.Sprintf("see the reason; a restore that succeeds, or `snapctl clear %s`, sets the count back", match.Ref(e))
	},
	report.Unfit: func(e checkpoint.Entry) string {
		return fmt.Sprintf("take it again on this node, and `snapctl rm %s`", match.Ref(e))
	},
}

func lastFailure(e checkpoint.Entry) string {
	if e.State.LastFailure == "" {
		return ""
	}
	return "; last failure: " + e.State.LastFailure
}
