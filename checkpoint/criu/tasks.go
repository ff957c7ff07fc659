package criu

import (
	"errors"
	"fmt"
	"strconv"
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
	recs, err := records(dir, name)
	if err != nil {
		return nil, err
	}
	var tasks []task
	for _, rec := range recs {
		t, err := parseTask(rec)
		if err != nil {
			return nil, unusable(name, err)
		}
		tasks = append(tasks, t)
	}
	return tasks, nil
}

// parseTask reads a pstree_entry (images/pstree.proto).
func parseTask(rec []byte) (task, error) {
	fs, err := fields(rec)
	if err != nil {
		return task{}, err
	}
	var t task
	for _, f := range fs {
		switch f.num {
		case 1:
			if f.value == 0 || f.value > maxPID {
				return task{}, fmt.Errorf("process id %d cannot be", f.value)
			}
			t.pid = int(f.value)
		case 5:
			t.threads = append(t.threads, f.value)
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
	core, err := records(dir, "core-"+pid)
	if err != nil {
		return err
	}
	dead, err := parseDead(core[0])
	if err != nil {
		return unusable("core-"+pid, err)
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
	ids, err := records(dir, "ids-"+pid)
	if err != nil {
		return err
	}
	files, err := parseFilesID(ids[0])
	if err != nil {
		return unusable("ids-"+pid, err)
	}
	return checkMagic(dir, fmt.Sprintf("fdinfo-%d.img", files))
}

// parseDead says of a core_entry whether its process is a zombie: field tc,
// and in it task_state (images/core.proto).
func parseDead(rec []byte) (bool, error) {
	fs, err := fields(rec)
	if err != nil {
		return false, err
	}
	for _, f := range fs {
		if f.num != 3 {
			continue
		}
		tc, err := fields(f.bytes)
		if err != nil {
			return false, err
		}
		for _, f := range tc {
			if f.num == 1 {
				return f.value == taskDead, nil
			}
		}
	}
	return false, errors.New("no state of the process")
}

// parseFilesID returns field files_id of a task_kobj_ids_entry: the number of the
// process's fdinfo image.
func parseFilesID(rec []byte) (uint64, error) {
	fs, err := fields(rec)
	if err != nil {
		return 0, err
	}
	for _, f := range fs {
		if f.num == 2 {
			return f.value, nil
		}
	}
	return 0, errors.New("no number of the descriptor table")
}
