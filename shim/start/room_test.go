package start

import (
	"os"
	"testing"
)

func TestMemoryOf(t *testing.T) {
	const rollup = `5581c0400000-7ffd4b5f9000 ---p 00000000 00:00 0                          [rollup]
Rss:                2048 kB
Pss:                1200 kB
Pss_Anon:            100 kB
Pss_File:           1000 kB
Pss_Shmem:            20 kB
SwapPss:               3 kB
Locked:                0 kB
`
	if got := parseRollup([]byte(rollup)); got != 123<<10 {
		t.Errorf("%d bytes, want %d", got, 123<<10)
	}
	if got := memoryOf(os.Getpid()); got < 1<<20 || got > 1<<34 {
		t.Errorf("this process holds %d bytes", got)
	}
	if got := memoryOf(-1); got != 0 {
		t.Errorf("a process that is gone holds %d bytes", got)
	}
}

func FuzzRollup(f *testing.F) {
	f.Add([]byte("Pss_Anon: 1 kB\nPss_Shmem:\nSwapPss: -1 kB"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n := parseRollup(text); n < 0 {
			t.Errorf("%d bytes", n)
		}
	})
}
