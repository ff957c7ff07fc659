// Package rule says whether a program may get its memory back mapped: whether
// all code that it runs is known not to rely on what differs between anonymous memory and
// a private mapping of a file (see package mapped). That is above all
// madvise(MADV_DONTNEED), after which an anonymous area reads as zeroes and the mapping
// as the file.
//
// It looks at every file of which a process has an executable mapping. Such a file is on
// the safe side in one of two ways:
//
//   - It cannot give pages back by itself: it is linked dynamically, does not contain
//     the name madvise, does not import syscall, and has no system call instruction
//     with madvise's number before it.
//   - It is known, and a test of this project has restored it mapped and checked its
//     memory (package test/integration, TestAllocators).
//
// Everything else is unknown, and then the memory is copied: other allocators, programs
// linked statically, and executable memory that is no file, as just-in-time compilers make.
package rule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// Tree is the code that the processes of a container run.
type Tree struct {
	programs []program
	// problem is what is known to stand in the way without a look into a file.
	problem string
}

// program is a file of which there is an executable mapping.
type program struct {
	path string
	file *os.File
}

// Verdict says whether memory may be mapped.
type Verdict struct {
	Safe bool
	// Reason is one sentence for people, without a full stop.
	Reason string
}

// Collect notes what the processes run, which must not change meanwhile: they are frozen.
// Close frees it. What cannot be looked at (map_files needs a capability in the host's
// user namespace) is unknown.
func Collect(pids []int) *Tree {
	t := &Tree{}
	seen := map[string]bool{}
	for _, pid := range pids {
		if err := t.add(pid, seen); err != nil {
			t.problem = fmt.Sprintf("the code of process %d cannot be looked at: %s", pid, printable(err.Error()))
		}
	}
	return t
}

func (t *Tree) add(pid int, seen map[string]bool) error {
	dir := "/proc/" + strconv.Itoa(pid)
	maps, err := os.ReadFile(dir + "/maps")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		m, ok := parseMapping(line)
		if !ok {
			return fmt.Errorf("line %q of its maps is not understood", strings.TrimSpace(line))
		}
		switch {
		case !m.executable || m.kernels:
		case m.inode == "0":
			t.problem = "executable memory that is no file, as a just-in-time compiler makes it, in " + comm(dir)
		case m.writable:
			t.problem = printable(m.path) + " is mapped both writable and executable"
		case !seen[m.device+" "+m.inode]:
			seen[m.device+" "+m.inode] = true
			f, err := os.Open(filepath.Join(dir, "map_files", m.addresses))
			if err != nil {
				return err
			}
			t.programs = append(t.programs, program{path: m.path, file: f})
		}
	}
	return nil
}

func comm(dir string) string {
	name, err := os.ReadFile(dir + "/comm")
	if err != nil {
		return "a process"
	}
	return strconv.Quote(strings.TrimSpace(string(name)))
}

// printable is a name that a container chose, for people.
func printable(name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
	return strings.ToValidUTF8(name[:min(len(name), 255)], "") // no half of a letter
}

// mapping is a line of /proc/PID/maps.
type mapping struct {
	addresses, device, inode, path string
	// kernels says that it is the kernel's own: the vDSO and its like.
	executable, writable, kernels bool
}

func parseMapping(line string) (mapping, bool) {
	f := strings.Fields(line)
	if len(f) < 5 || len(f[1]) != 4 || !strings.Contains(f[0], "-") {
		return mapping{}, false
	}
	m := mapping{addresses: trimZeroes(f[0]), device: f[3], inode: f[4], executable: f[1][2] == 'x', writable: f[1][1] == 'w'}
	if len(f) > 5 {
		m.path = strings.Join(f[5:], " ")
	}
	m.kernels = m.inode == "0" && (m.path == "[vdso]" || m.path == "[vsyscall]" || m.path == "[uprobes]")
	return m, true
}

// trimZeroes writes addresses as the names in map_files, without leading zeroes.
func trimZeroes(addresses string) string {
	from, to, _ := strings.Cut(addresses, "-")
	trim := func(s string) string { return strings.TrimLeft(s[:len(s)-1], "0") + s[len(s)-1:] }
	if from == "" || to == "" {
		return addresses
	}
	return trim(from) + "-" + trim(to)
}

// Close frees what Collect opened.
func (t *Tree) Close() {
	for _, p := range t.programs {
		p.file.Close()
	}
	t.programs = nil
}

// Judge looks at all files. If ctx ends meanwhile, the verdict means nothing.
func (t *Tree) Judge(ctx context.Context) Verdict {
	if t.problem != "" {
		return Verdict{Reason: t.problem}
	}
	if len(t.programs) == 0 {
		return Verdict{Reason: "no code was found"}
	}
	var known, problems []string
	for _, p := range t.programs {
		if ctx.Err() != nil {
			return Verdict{Reason: "not all code was looked at"}
		}
		v := p.judge()
		if !v.Safe {
			problems = append(problems, printable(filepath.Base(p.path))+" "+v.Reason)
			continue
		}
		if v.Reason != "" && !strings.Contains(strings.Join(known, ", "), v.Reason) {
			known = append(known, v.Reason)
		}
	}
	if n := len(problems); n > 0 {
		// All of them would be too many in a program with many libraries.
		reason := strings.Join(problems[:min(n, maxProblems)], ", ")
		if n > maxProblems {
			reason += fmt.Sprintf(", and %d more", n-maxProblems)
		}
		return Verdict{Reason: reason}
	}
	reason := fmt.Sprintf("none of %d mapped files is known to tell the difference", len(t.programs))
	if len(known) > 0 {
		reason += " (" + strings.Join(known, ", ") + ")"
	}
	return Verdict{Safe: true, Reason: reason}
}

// maxProblems is how many files a reason names.
const maxProblems = 4

func (p program) judge() Verdict {
	st, err := p.file.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > 1<<32 {
		return Verdict{Reason: "is no file that can be judged"}
	}
	data, err := unix.Mmap(int(p.file.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return Verdict{Reason: "cannot be read: " + printable(err.Error())}
	}
	defer unix.Munmap(data) //nolint:errcheck // nothing depends on it
	return judge(bytes.NewReader(data), data)
}
