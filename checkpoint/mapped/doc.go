// Package mapped turns the memory in CRIU's images into the mapped form, in
// which a restore reads no page of it, and back.
//
// In the copy form, which CRIU writes, all pages of a process lie in its pages
// image, and a restore copies them. In the mapped form the large private
// anonymous areas of a process are private mappings of its page file: an area's
// pages lie there at their offsets, and what is written to them is copied
// by the kernel, page by page. Everything else stays as CRIU wrote it: stacks,
// areas that are locked, shared, executable, wiped on fork, guarded or small.
//
// # Page files
//
// Each process has its own page file, except for an area that it has from its
// parent and of which most pages are still equal: that one maps the parent's file,
// and the pages that differ stay in the process's pages image. CRIU, which
// recognises areas that two processes share by file, start and end, then inherits
// the parent's mapping and compares those pages only; where only the bounds differ, both
// map the file. A file is shared only
// between processes with equal credentials and seccomp filters: who maps a file can
// map more of it with mremap, and must not see what was never his.
//
// Behind its data a page file has a hole of a tebibyte, because a private file
// mapping that mremap enlarges (realloc does) is enlarged in the file: the hole
// reads as the zeroes that an anonymous area would have, where the end of a file
// would be SIGBUS. Offsets are equal to addresses modulo 2 MiB.
//
// # What differs from anonymous memory
//
// After madvise(MADV_DONTNEED) an anonymous area reads as zeroes, a private
// file mapping as the file. Package mapped/rule says for which programs that makes no
// difference. docs/memory.md tells all that differs.
//
// The package reads images of a checkpoint at its capture, and at a start only
// if the mapped form has to be turned back. It reads of them what it has to, and
// keeps all fields that it does not know. It has no locks.
package mapped
