package store

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd-snap/snap/checkpoint"
)

// childChurn registers and removes checkpoints until it is killed. It prints a line for each.
func childChurn(root string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("churn-%d", i%3)
		e, err := register(s, testMeta("churn", testTime.Add(time.Duration(i))), CommitOptions{Name: name, Replace: true})
		if err != nil {
			return err
		}
		fmt.Println(e.Digest)
		if _, err := s.RecordFailure(e.Digest, "churn"); err != nil {
			return err
		}
		if i%2 == 0 {
			if err := s.Remove(e.Digest); err != nil {
				return err
			}
		}
		if err := s.PutStart(testStart("default", name)); err != nil {
			return err
		}
	}
}

// childDraft holds a draft until it is killed.
func childDraft(root string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	d, err := s.NewDraft()
	if err != nil {
		return err
	}
	if err := fill(d); err != nil {
		return err
	}
	fmt.Println(d.dir)
	awaitParent()
	return d.Discard()
}

// childFail records 50 failures of the only entry.
func childFail(root string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	entries, err := s.List()
	if err != nil {
		return err
	}
	fmt.Println("ready")
	awaitParent()
	for range 50 {
		if _, err := s.RecordFailure(entries[0].Digest, "it did not start"); err != nil {
			return err
		}
	}
	return nil
}

// childHold holds the only entry until it is killed.
func childHold(root string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	entries, err := s.List()
	if err != nil {
		return err
	}
	release, err := s.Hold(entries[0].Digest)
	if err != nil {
		return err
	}
	defer release()
	fmt.Println("held")
	awaitParent()
	return nil
}

// childName tries to register a checkpoint under a name that others want as well.
func childName(root string) error {
	s, err := Open(root)
	if err != nil {
		return err
	}
	d, err := s.NewDraft()
	if err != nil {
		return err
	}
	defer d.Discard()
	if err := fill(d); err != nil {
		return err
	}
	fmt.Println("ready")
	awaitParent()
	ctx, cancel := childContext()
	defer cancel()
	_, err = d.Commit(ctx, testMeta("name", testTime), CommitOptions{Name: "wanted"})
	switch {
	case err == nil:
		fmt.Println("won")
	case errors.Is(err, checkpoint.ErrExists):
		fmt.Println("lost")
	default:
		return err
	}
	return nil
}

// childSpace runs in a mount namespace of its own. It mounts file systems with less and
// less room at root, and commits on each until one has enough.
func childSpace(root string) error {
	meta := testMeta("space", testTime)
	refused := 0
	for inodes := 24; inodes < 60; inodes++ {
		err := withTmpfs(root, fmt.Sprintf("mode=0700,size=1m,nr_inodes=%d", inodes), func() error {
			return commitInSpace(root, meta)
		})
		if err == nil {
			if refused == 0 {
				return errors.New("the smallest file system had enough room: nothing was tested")
			}
			fmt.Println(refused)
			return nil
		}
		if !errors.Is(err, errOutOfSpace) {
			return fmt.Errorf("%d inodes: %w", inodes, err)
		}
		refused++
	}
	return errors.New("no file system had enough room")
}

// errOutOfSpace says that a commit was refused as it should be.
var errOutOfSpace = errors.New("out of space, cleanly")

func commitInSpace(root string, meta checkpoint.Checkpoint) error {
	s, err := Open(root)
	if err != nil {
		return noSpace(err)
	}
	d, err := s.NewDraft()
	if err != nil {
		return noSpace(err)
	}
	defer d.Discard()
	if err := fill(d); err != nil {
		return noSpace(err)
	}
	ctx, cancel := childContext()
	defer cancel()
	_, err = d.Commit(ctx, meta, CommitOptions{Name: "space"})
	if err == nil {
		return nil
	}
	if !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), "snapctl rm") {
		return fmt.Errorf("unclear error: %w", err)
	}
	if err := d.Discard(); err != nil {
		return err
	}
	for _, dir := range []string{entriesDir, indexDir, namesDir, stateDir, draftsDir, trashDir, tmpDir} {
		names, err := listDir(s.path(dir))
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("a refused commit left %q in %s", names, dir)
		}
	}
	return errOutOfSpace
}

// childSpaceStart fills a file system and then changes what is small.
func childSpaceStart(root string) error {
	return withTmpfs(root, "mode=0700,size=1m", func() error {
		s, err := Open(root)
		if err != nil {
			return err
		}
		e, err := register(s, testMeta("space", testTime), CommitOptions{})
		if err != nil {
			return err
		}
		if _, err := s.RecordFailure(e.Digest, "before"); err != nil {
			return err
		}
		if err := fillUp(s.path("full")); err != nil {
			return err
		}
		for what, err := range map[string]error{
			"RecordSuccess": s.RecordSuccess(e.Digest, testTime),
			"PutStart":      s.PutStart(testStart("default", "a")),
		} {
			if !errors.Is(noSpace(err), errOutOfSpace) || !strings.Contains(err.Error(), "snapctl rm") {
				return fmt.Errorf("%s on a full disk: %w", what, err)
			}
		}
		names, err := listDir(s.path(tmpDir))
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("left %q", names)
		}
		if e, err = s.Resolve(e.Digest); err != nil {
			return err
		}
		if e.State.LastFailure != "before" {
			return fmt.Errorf("state is %+v", e.State)
		}
		// Removing must work where there is no room: it is the remedy.
		if err := s.Remove(e.Digest); err != nil {
			return err
		}
		if s.registered(e.Digest[7:]) {
			return errors.New("removed, and still there")
		}
		return nil
	})
}
