package rule

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"runtime/debug"
	"slices"
	"strings"
)

// allocators are those that were not proven, or proven to be unsafe, by a text that each
// copy of them contains, also one that is part of a program. They would be
// found by the name madvise as well; with them the reason is better.
var allocators = []struct{ text, reason string }{
	{"<jemalloc>: ", "contains jemalloc, which takes purged memory for zeroes"},
	{"mimalloc: ", "contains mimalloc, for which it is not proven"},
	{"TCMallocImplementation", "contains tcmalloc, for which it is not proven"},
}

// known are the programs and libraries that may name madvise or syscall, each
// with what tells it and with the test that proves it.
var known = []struct {
	name string
	is   func(*object) bool
}{
	{"glibc", func(o *object) bool {
		return (o.soname == "libc.so.6" && o.contains("GNU C Library (")) ||
			(strings.HasPrefix(o.soname, "ld-linux-") && o.contains("GLIBC_PRIVATE"))
	}},
	{"musl", func(o *object) bool {
		return o.contains("musl libc (") && o.defines("__libc_start_main", "malloc")
	}},
	{"CPython", func(o *object) bool {
		return o.defines("PyObject_Malloc", "Py_BytesMain") || o.defines("PyInit_mmap")
	}},
	// It waits for futexes, and asks for random numbers.
	{"libstdc++", func(o *object) bool { return o.soname == "libstdc++.so.6" && o.contains("GLIBCXX_") }},
	// It asks for random numbers, and for its thread's id.
	{"libuuid", func(o *object) bool { return o.soname == "libuuid.so.1" && o.contains("UUID_1.0") }},
	// It advises the kernel to use huge pages.
	{"NumPy", func(o *object) bool { return o.defines("PyInit__multiarray_umath") }},
	// It advises the kernel about dumps of its secure heap, and asks it for random numbers.
	{"OpenSSL", func(o *object) bool {
		return (o.soname == "libcrypto.so.3" || o.soname == "libcrypto.so.1.1") && o.contains("OpenSSL ")
	}},
}

// object is an ELF file.
type object struct {
	*elf.File
	data   []byte
	soname string
}

func (o *object) contains(text string) bool { return bytes.Contains(o.data, []byte(text)) }

// defines says whether the object exports all the names.
func (o *object) defines(names ...string) bool {
	symbols, err := o.DynamicSymbols()
	if err != nil {
		return false
	}
	for _, name := range names {
		if !slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return s.Name == name && s.Section != elf.SHN_UNDEF }) {
			return false
		}
	}
	return true
}

// judge says whether a file is on the safe side; the Reason of one that is known is its
// name, of one that cannot give back pages empty, and of an unsafe one the rest of a
// sentence that begins with the file.
func judge(r io.ReaderAt, data []byte) (v Verdict) {
	// debug/elf is not made for files that are meant to confuse it, and a file that the container
	// truncates meanwhile makes reading its mapping a fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			v = Verdict{Reason: "is damaged"}
		}
	}()
	f, err := elf.NewFile(r)
	if err != nil {
		return Verdict{Reason: "is executed and is no ELF file"}
	}
	o := &object{File: f, data: data}
	if names, err := f.DynString(elf.DT_SONAME); err == nil && len(names) > 0 {
		o.soname = names[0]
	}
	for _, a := range allocators {
		if o.contains(a.text) {
			return Verdict{Reason: a.reason}
		}
	}
	if o.Section(".go.buildinfo") != nil {
		return Verdict{Reason: "is a Go program, whose runtime takes memory that it gave back for zeroes"}
	}
	for _, k := range known {
		if k.is(o) {
			return Verdict{Safe: true, Reason: k.name}
		}
	}
	return o.inert()
}

// inert says whether the object cannot give pages back by itself.
func (o *object) inert() Verdict {
	imports, err := o.ImportedSymbols()
	needed, nerr := o.ImportedLibraries()
	switch {
	case err != nil || nerr != nil:
		return Verdict{Reason: "is linked statically, which hides what it calls"}
	case o.contains("madvise\x00"):
		return Verdict{Reason: "may call madvise, and what it relies on then is not known"}
	case slices.ContainsFunc(imports, func(s elf.ImportedSymbol) bool { return s.Name == "syscall" }):
		return Verdict{Reason: "may make any system call"}
	case o.Type == elf.ET_EXEC && len(needed) == 0, o.Type == elf.ET_DYN && len(needed) == 0 && o.soname == "" && o.program():
		return Verdict{Reason: "is linked statically, which hides what it calls"}
	}
	return o.systemCalls()
}

// program says whether the object has an entry point of its own.
func (o *object) program() bool {
	return o.Entry != 0 || slices.ContainsFunc(o.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// reach is how far before a system call instruction its number may be set.
const reach = 128

// systemCalls looks for a madvise that is made without the C library.
func (o *object) systemCalls() Verdict {
	var number [][]byte
	var instruction []byte
	switch {
	case o.Machine == elf.EM_X86_64 && o.Class == elf.ELFCLASS64:
		// mov $28, %eax; mov $28, %rax; push $28, pop %rax.
		number = [][]byte{{0xb8, 28, 0, 0, 0}, {0x48, 0xc7, 0xc0, 28, 0, 0, 0}, {0x6a, 28, 0x58}}
		instruction = []byte{0x0f, 0x05}
	case o.Machine == elf.EM_AARCH64 && o.ByteOrder == binary.LittleEndian:
		// mov x8, #233; mov w8, #233.
		number = [][]byte{{0x28, 0x1d, 0x80, 0xd2}, {0x28, 0x1d, 0x80, 0x52}}
		instruction = []byte{0x01, 0, 0, 0xd4}
	default:
		return Verdict{Reason: "is of an architecture whose code cannot be judged"}
	}
	for _, p := range o.Progs {
		if p.Type != elf.PT_LOAD || p.Flags&elf.PF_X == 0 {
			continue
		}
		if p.Off > uint64(len(o.data)) || p.Filesz > uint64(len(o.data))-p.Off {
			return Verdict{Reason: "is damaged"}
		}
		code := o.data[p.Off:][:p.Filesz]
		for at := 0; ; {
			i := bytes.Index(code[at:], instruction)
			if i < 0 {
				break
			}
			at += i
			before := code[max(0, at-reach):at]
			if slices.ContainsFunc(number, func(n []byte) bool { return bytes.Contains(before, n) }) {
				return Verdict{Reason: "may call madvise, and what it relies on then is not known"}
			}
			at++
		}
	}
	return Verdict{Safe: true}
}
