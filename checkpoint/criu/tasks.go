package criu

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// task is one process of pstree.img.
type task struct {
	pid int
	// threads are its threads' ids; of a zombie, CRIU writes any number.
	threads []uint64
}

const (
	// maxPID is the kernel's limit of process ids (PID_MAX_LIMIT).
	maxPID = 1 << 22
	// taskDead is the state of a zombie (compel/include/uapi/task-state.h), of which there
	// is nothing but the core image.
	taskDead = 2
)

// tree returns the processes of pstree.img, the root first.
func tree(dir string) ([]task, error) {
	const name = "pstree.img"
	entries, err := messages(dir, name)
	if err != nil {
		return nil, err
	}
	var tasks []task
	for _, e := range entries {
		t, err := readTask(e)
		if err != nil {
			return nil, image.Unusable(name, err)
		}
		tasks = append(tasks, t)
	}
	return tasks, nil
}

// readTask reads a pstree_entry (images/pstree.proto).
func readTask(entry image.Message) (task, error) {
	var t task
	for _, f := range entry {
		switch f.Num {
		case 1:
			if f.Value == 0 || f.Value > maxPID {
				return task{}, fmt.Errorf("process id %d cannot be", f.Value)
			}
			t.pid = int(f.Value)
		case 5:
			t.threads = append(t.threads, f.Value)
		}
	}
	if t.pid == 0 {
		return task{}, errors.New("a process without an id")
	}
	return t, nil
}

// checkTask looks for the images of one process.
func checkTask(dir string, t task) error {
	pid := strconv.Itoa(t.pid) + ".img"
	core, err := messages(dir, "core-"+pid)
	if err != nil {
		return err
	}
	dead, err := isDead(core[0])
	if err != nil {
		return image.Unusable("core-"+pid, err)
	}
	if dead {
		return nil
	}
	for _, tid := range t.threads {
		if err := checkMagic(dir, "core-"+strconv.FormatUint(tid, 10)+".img"); err != nil {
			return err
		}
	}
	for _, name := range []string{"mm-" + pid, "pagemap-" + pid, "fs-" + pid} {
		if err := checkMagic(dir, name); err != nil {
			return err
		}
	}
	ids, err := messages(dir, "ids-"+pid)
	if err != nil {
		return err
	}
	files, err := filesID(ids[0])
	if err != nil {
		return image.Unusable("ids-"+pid, err)
	}
	return checkMagic(dir, fmt.Sprintf("fdinfo-%d.img", files))
}

// isDead says of a core_entry whether its process is a zombie: field tc,
// and in it task_state (images/core.proto).
func isDead(core image.Message) (bool, error) {
	tc, err := image.Parse(core.Text(3))
	if err != nil {
		return false, err
	}
	state := tc.Find(1)
	if state == nil {
		return false, errors.New("no state of the process")
	}
	return state.Value == taskDead, nil
}

// filesID returns field files_id of a task_kobj_ids_entry: the number of the
// process's fdinfo image.
func filesID(ids image.Message) (uint64, error) {
	f := ids.Find(2)
	if f == nil {
		return 0, errors.New("no number of the descriptor table")
	}
	return f.Value, nil
}
