package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is what /proc says of a process.
type Process struct {
	PID, PPID int
	// State is R, S, D, Z and so on.
	State string
	// Command is its name, Args its command line; a zombie has none.
	Command string
	Args    []string
	// Env is the environment that it was started with, as far as it can be read.
	Env []string
	// Cgroups are its lines of /proc/PID/cgroup.
	Cgroups []string
}

func (p Process) String() string {
	return fmt.Sprintf("%d (parent %d, state %s): %s %s", p.PID, p.PPID, p.State, p.Command, strings.Join(p.Args, " "))
}

// Processes lists the processes that exist.
func Processes() ([]Process, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		p, err := ReadProcess(pid)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// ReadProcess describes one process.
func ReadProcess(pid int) (Process, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Process{}, err
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return Process{}, err
	}
	cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return Process{}, err
	}
	p := Process{PID: pid, Cgroups: strings.Split(strings.TrimSpace(string(cgroup)), "\n")}
	// "12 (name with ) in it) S 1 ...".
	before, after, _ := bytes.Cut(stat, []byte(" ("))
	i := bytes.LastIndexByte(after, ')')
	if i < 0 {
		return Process{}, fmt.Errorf("read %s/stat: %q", dir, before)
	}
	p.Command = string(after[:i])
	if fields := strings.Fields(string(after[i+1:])); len(fields) > 1 {
		p.State = fields[0]
		p.PPID, _ = strconv.Atoi(fields[1])
	}
	p.Args = words(cmdline)
	// A zombie's cannot be read.
	if env, err := os.ReadFile(filepath.Join(dir, "environ")); err == nil {
		p.Env = words(env)
	}
	return p, nil
}

// words splits what ends each of its words with a zero byte.
func words(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// CountFDs is the number of descriptors that a process has open.
func CountFDs(pid int) (int, error) {
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	return len(fds), err
}

// CountThreads is the number of a process's threads.
func CountThreads(pid int) (int, error) {
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	return len(tasks), err
}
