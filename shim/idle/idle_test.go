package idle

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const smaps = `00400000-00b4e000 r-xp 00000000 08:02 173521    /usr/bin/shim
Size:               7480 kB
Rss:                7000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00b4e000-00c00000 r--p 0074e000 08:02 173521    /usr/bin/shim
Anonymous:             4 kB
00c00000-00d00000 r--p 0084e000 08:02 173521    /usr/bin/shim
Anonymous:             0 kB
00d00000-00e00000 rw-p 0094e000 08:02 173521    /usr/bin/shim
Anonymous:             0 kB
00e00000-00f00000 r--s 0094e000 08:02 173521    /usr/bin/shim
Anonymous:             0 kB
7f0000000000-7f0000100000 r-xp 00000000 08:02 99    /usr/lib/libc.so.6
Anonymous:             0 kB
7f0000200000-7f0000300000 ---p 00000000 00:00 0
Anonymous:             0 kB
`

// Only what was never written, and cannot be, is dropped.
func TestDroppable(t *testing.T) {
	got := droppable(strings.NewReader(smaps), "/usr/bin/shim")
	want := []area{{0x400000, 0xb4e000}, {0xc00000, 0xd00000}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	if got := droppable(strings.NewReader("nonsense\n-\nAnonymous: 0 kB\n"), "nonsense"); len(got) != 0 {
		t.Errorf("%x", got)
	}
}

// garbage is what a start leaves.
var garbage []byte

// TestTrim: after a quiet time the process is smaller, and still right.
func TestTrim(t *testing.T) {
	garbage = make([]byte, 32<<20)
	for i := range garbage {
		garbage[i] = 1
	}
	garbage = nil
	before := resident()
	var tr Trimmer
	begin := time.Now()
	tr.Busy()
	tr.Busy()
	for resident() > before-(16<<20) {
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("%d bytes, %d before", resident(), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if waited := time.Since(begin); waited < quiet {
		t.Errorf("trimmed after %s", waited)
	}
	// The program's pages come back.
	if got := droppable(strings.NewReader(smaps), "/usr/bin/shim"); len(got) != 2 {
		t.Errorf("%x", got)
	}
}
