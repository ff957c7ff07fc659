// Command scribe is a program for tests of clones: it does with files what it is told, a
// command per line of its input, and answers each with a line. What it holds open it
// holds from one command to the next, and over a restore.
//
// With the argument "lines" it prints numbered lines instead, see lines.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "lines" {
		lines(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "winch" {
		go tellSizes()
	}
	fmt.Println("ready")
	s := scribe{files: map[string]*os.File{}, areas: map[string][]byte{}}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		if len(words) == 0 {
			continue
		}
		answer, err := s.do(words[0], words[1:])
		if err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Printf("%s -> %s\n", words[0], answer)
	}
}

// tellSizes prints the size of the terminal whenever it is told that it has changed.
func tellSizes() {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	for range changed {
		fmt.Println("SIGWINCH", size())
	}
}

func size() string {
	ws, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%dx%d", ws.Col, ws.Row)
}

// scribe is what the program holds, by names that the commands give.
type scribe struct {
	files map[string]*os.File
	areas map[string][]byte
}

// flags are the ways to open a file.
var flags = map[string]int{
	"read": os.O_RDONLY, "write": os.O_RDWR, "create": os.O_RDWR | os.O_CREATE, "append": os.O_WRONLY | os.O_APPEND | os.O_CREATE,
}

func (s *scribe) do(command string, args []string) (string, error) {
	at := func(i int) string {
		if 0 <= i && i < len(args) {
			return args[i]
		}
		return ""
	}
	n, _ := strconv.ParseInt(at(len(args)-1), 10, 64)
	f := s.files[at(0)]
	switch command {
	case "size": // of the terminal
		return size(), nil
	case "move-stdout": // to descriptor 9, and nothing else keeps it
		return "moved", moveStdout()
	case "open": // NAME PATH HOW
		f, err := os.OpenFile(at(1), flags[at(2)], 0o644)
		s.files[at(0)] = f
		return "opened", err
	case "chdir": // PATH
		return "changed", os.Chdir(at(0)) //nolint:forbidigo // a program of its own, with one task
	case "remove": // PATH
		return "removed", os.Remove(at(0))
	case "link": // OLD NEW
		return "linked", os.Link(at(0), at(1))
	case "setxattr": // PATH NAME VALUE
		return "set", unix.Setxattr(at(0), at(1), []byte(at(2)), 0)
	case "getxattr": // PATH NAME
		b := make([]byte, 100)
		n, err := unix.Getxattr(at(0), at(1), b)
		return string(b[:max(n, 0)]), err
	case "listen": // PATH
		return "bound", bind(at(0))
	case "map": // NAME, all of an open file, shared
		st, err := f.Stat()
		if err != nil {
			return "", err
		}
		s.areas[at(0)], err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return "mapped", err
	case "peek": // NAME
		return strconv.Quote(string(s.areas[at(0)][:16])), nil
	case "poke": // NAME TEXT
		copy(s.areas[at(0)], at(1))
		return "poked", nil
	}
	if f == nil {
		return "", fmt.Errorf("%q is not open, or %s is no command", at(0), command)
	}
	switch command {
	case "close":
		delete(s.files, at(0))
		return "closed", f.Close()
	case "read": // NAME, from the beginning
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<16))
		return strconv.Quote(string(b)), err
	case "write": // NAME TEXT, where it stands
		_, err := f.WriteString(at(1))
		return "written", err
	case "fill": // NAME BYTES, with what is no hole
		return "filled", fill(f, n)
	case "extend": // NAME BYTES, with a hole
		return "extended", f.Truncate(n)
	case "sum": // NAME
		return sum(f)
	case "stat": // NAME
		var st unix.Stat_t
		err := unix.Fstat(int(f.Fd()), &st)
		return fmt.Sprintf("size %d links %d stored %d", st.Size, st.Nlink, st.Blocks*512), err
	}
	return "", fmt.Errorf("%s is no command", command)
}

// moveStdout has standard output at a number where nobody looks for it.
func moveStdout() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := unix.Dup2(1, 9); err != nil {
		return err
	}
	os.Stdout = os.NewFile(9, "stdout")
	return unix.Dup2(int(null.Fd()), 1)
}

func bind(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
}

// sum returns the length of a file and a digest of its pages that are not zero. It reads no hole.
func sum(f *os.File) (string, error) {
	h := sha256.New()
	page, zero := make([]byte, 4096), make([]byte, 4096)
	for at := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return "", err
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return "", err
		}
		for at = data; at < hole; at += int64(len(page)) {
			n, err := f.ReadAt(page, at)
			if err != nil && !errors.Is(err, io.EOF) {
				return "", err
			}
			if !bytes.Equal(page[:n], zero[:n]) {
				fmt.Fprintln(h, at)
				h.Write(page[:n])
			}
		}
	}
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %x", st.Size(), h.Sum(nil)), nil
}

// fill writes bytes of which no page is like another.
func fill(f *os.File, n int64) error {
	w := bufio.NewWriterSize(io.NewOffsetWriter(f, 0), 1<<20)
	b := make([]byte, 4096)
	for i := range b {
		b[i] = byte(i)*7 + 1
	}
	for at := int64(0); at < n; at += int64(len(b)) {
		copy(b, strconv.FormatInt(at, 16))
		if _, err := w.Write(b[:min(int64(len(b)), n-at)]); err != nil {
			return err
		}
	}
	return w.Flush()
}
