package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// LineLength is that of a numbered line, with its end.
const lineLength = 13

// lines prints lines of twelve digits, counting from 0, without an end. Its writes are of
// a length that is no multiple of a line's or of a page's. With an argument it rests
// for so many microseconds after each.
func lines(args []string) {
	pause := 0
	if len(args) > 0 {
		pause, _ = strconv.Atoi(args[0])
	}
	const most = 10_007
	var pending []byte
	for n := 0; ; {
		for len(pending) < most {
			pending = fmt.Appendf(pending, "%0*d\n", lineLength-1, n)
			n++
		}
		// Write goes on with what is left where the kernel took a part only.
		if _, err := os.Stdout.Write(pending[:most]); err != nil {
			os.Exit(1)
		}
		pending = append(pending[:0], pending[most:]...)
		time.Sleep(time.Duration(pause) * time.Microsecond)
	}
}
