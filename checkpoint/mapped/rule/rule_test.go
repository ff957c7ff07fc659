package rule

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// build compiles a C program.
func build(t *testing.T, source string, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.c"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "p")
	cmd := exec.CommandContext(t.Context(), "gcc", append([]string{"-O1", "-o", out, filepath.Join(dir, "p.c")}, args...)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, msg)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestJudge(t *testing.T) {
	const (
		plain   = `#include <stdlib.h>` + "\n" + `int main(void) { return malloc(9) == 0; }`
		advises = `#include <sys/mman.h>` + "\n" + `int main(int n, char **v) { return madvise(v, n, MADV_DONTNEED); }`
		anyCall = `#include <unistd.h>` + "\n" + `#include <sys/syscall.h>` + "\n" + `int main(int n, char **v) { return syscall(SYS_getpid); }`
		byName  = `#define _GNU_SOURCE` + "\n" + `#include <dlfcn.h>` + "\n" + `int main(void) { return dlsym(RTLD_DEFAULT, "madvise") == 0; }`
		byHand  = `int main(int n, char **v) { long r;
#ifdef __x86_64__
	__asm__ volatile("syscall" : "=a"(r) : "a"(28L), "D"(v), "S"(4096L), "d"(4L) : "rcx", "r11", "memory");
#else
	register long x8 __asm__("x8") = 233; register long x0 __asm__("x0") = (long)v;
	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8) : "memory"); r = x0;
#endif
	return r; }`
		embeds = `const char text[] = "<jemalloc>: error"; int main(int n, char **v) { return text[n]; }`
	)
	for _, test := range []struct {
		name, source string
		args         []string
		safe         bool
		reason       string
	}{
		{"plain", plain, nil, true, ""},
		{"library", plain, []string{"-shared", "-fPIC"}, true, ""},
		{"stripped", plain, []string{"-s"}, true, ""},
		{"static", plain, []string{"-static"}, false, "linked statically"},
		{"static without a C library", `void _start(void) {}`, []string{"-nostdlib", "-static"}, false, "linked statically"},
		{"static and independent of its place", `void _start(void) {}`, []string{"-nostdlib", "-static-pie"}, false, "linked statically"},
		{"advises", advises, nil, false, "may call madvise"},
		{"advises and is stripped", advises, []string{"-s"}, false, "may call madvise"},
		{"any call", anyCall, nil, false, "any system call"},
		{"by name", byName, nil, false, "may call madvise"},
		{"by hand", byHand, nil, false, "may call madvise"},
		{"jemalloc", embeds, nil, false, "jemalloc"},
	} {
		data := build(t, test.source, test.args...)
		got := judge(bytes.NewReader(data), data)
		if got.Safe != test.safe || !strings.Contains(got.Reason, test.reason) || test.safe && got.Reason != "" {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

// TestCollect looks at this test itself: a Go program that is linked with the C library.
func TestCollect(t *testing.T) {
	tree := Collect([]int{os.Getpid()})
	defer tree.Close()
	if len(tree.programs) == 0 || tree.problem != "" {
		t.Fatalf("%+v", tree)
	}
	if !strings.HasSuffix(tree.programs[0].path, "rule.test") {
		t.Errorf("the first program is %s", tree.programs[0].path)
	}
	if v := tree.Judge(t.Context()); v.Safe || !strings.Contains(v.Reason, "rule.test ") {
		t.Errorf("%+v", v)
	}
	// A process that is gone has no code.
	gone := exec.CommandContext(t.Context(), "true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if v := Collect([]int{gone.Process.Pid}).Judge(t.Context()); v.Safe {
		t.Errorf("%+v", v)
	}
}

// TestTruncated: a container may change a file while it is looked at.
func TestTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "library")
	data := build(t, `int f(void) { return 1; }`, "-shared", "-fPIC")
	if err := os.WriteFile(path, append(data, make([]byte, 1<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped, err := unix.Mmap(int(f.Fd()), 0, len(data)+1<<20, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if v := judge(bytes.NewReader(mapped), mapped); v.Safe || v.Reason != "is damaged" {
		t.Errorf("%+v", v)
	}
}

// TestExecutableMemory: what a just-in-time compiler makes cannot be judged.
func TestExecutableMemory(t *testing.T) {
	tree := &Tree{problem: "executable memory"}
	if v := tree.Judge(t.Context()); v.Safe || v.Reason != "executable memory" {
		t.Errorf("%+v", v)
	}
}

func FuzzMapping(f *testing.F) {
	f.Add("7f0000000000-7f0000001000 r-xp 00000000 08:01 123 /usr/lib/x y (deleted)")
	f.Add("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]")
	f.Add("- r-xp 0 0 0")
	f.Fuzz(func(t *testing.T, line string) {
		m, ok := parseMapping(line)
		if ok && (m.inode == "" || m.addresses == "") {
			t.Errorf("%q gives %+v", line, m)
		}
		if printable(m.path) != printable(printable(m.path)) {
			t.Errorf("path %q", m.path)
		}
	})
}

func FuzzJudge(f *testing.F) {
	self, err := os.ReadFile("/bin/true")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self)
	f.Add(self[:4096])
	f.Fuzz(func(t *testing.T, data []byte) {
		if v := judge(bytes.NewReader(data), data); !v.Safe && v.Reason == "" {
			t.Error("unsafe without a reason")
		}
	})
}
