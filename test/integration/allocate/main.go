// Command allocate is a Go program whose memory the integration tests have mapped
// back: it makes garbage for ever, gives what is free back to the kernel,
// and checks every byte. It says "ok" after each round in which all was right.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"
)

const (
	blocks = 400
	kept   = 32 << 20
)

// block is memory whose content follows from a seed.
type block struct {
	seed  uint32
	bytes []byte
}

func newBlock(seed uint32, size int) block {
	b := block{seed, make([]byte, size)}
	for i, v := range b.bytes {
		if v != 0 {
			wrong("new memory", i, size, v)
		}
		b.bytes[i] = b.at(i)
	}
	return b
}

func (b block) at(i int) byte { return byte((b.seed+uint32(i)*2654435761)>>13) | 1 }

func (b block) check(what string) {
	for i, v := range b.bytes {
		if v != b.at(i) {
			wrong(what, i, len(b.bytes), v)
		}
	}
}

func wrong(what string, i, size int, v byte) {
	fmt.Printf("wrong: %s: byte %d of %d is %#x\n", what, i, size, v)
	os.Exit(3)
}

func main() {
	r := uint32(1)
	next := func() uint32 { r = r*1664525 + 1013904223; return r >> 8 }
	all := newBlock(7, kept)
	list := make([]block, blocks)
	for round := 0; ; round++ {
		for i := range list {
			list[i].check("block")
			if next()%4 > 0 {
				size := 1 + int(next()%4096)
				if next()%16 == 0 {
					size *= 64
				}
				list[i] = newBlock(next(), size)
			}
		}
		all.check("what is kept")
		debug.FreeOSMemory()
		fmt.Println("ok", round)
		time.Sleep(50 * time.Millisecond)
	}
}
