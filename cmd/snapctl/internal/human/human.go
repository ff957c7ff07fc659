// Package human writes sizes, times and foreign text the way people read them
// in a table. It has no state and no locks.
package human

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bytes writes a size with three digits and a binary unit: "0 B", "1.50 KiB",
// "12.3 MiB", "215 MiB".
func Bytes(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, units := float64(n), "KMGTPE"
	unit := -1
	// 1023.5 would be written as 1024.
	for v >= 1023.5 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	digits := 0
	switch {
	case v < 9.995:
		digits = 2
	case v < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + units[unit:unit+1] + "iB"
}

// Age writes how long ago something was, in one unit: "7s", "12m", "47h", "30d",
// "3y". What lies in the future, as after the clock was set back, is "0s".
func Age(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d < 2*365*day:
		return fmt.Sprintf("%dd", d/day)
	}
	return fmt.Sprintf("%dy", d/(365*day))
}

// Milliseconds writes a duration that is given in milliseconds: "0.42 ms",
// "31.8 ms", "175 ms", "2.53 s".
func Milliseconds(ms float64) string {
	unit := " ms"
	if ms >= 999.5 {
		ms, unit = ms/1000, " s"
	}
	digits := 0
	switch {
	case ms < 9.995:
		digits = 2
	case ms < 99.95:
		digits = 1
	}
	return strconv.FormatFloat(ms, 'f', digits, 64) + unit
}

// Time writes a moment in full, in UTC.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Text writes text that came from elsewhere (an image, a container, a log) on one
// line and without control characters, which could drive the terminal.
func Text(s string) string {
	if !strings.ContainsFunc(s, unsafe) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if unsafe(r) {
			quoted := strconv.QuoteToASCII(s[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

func unsafe(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// Short is Text of at most width characters; the last one says that there was more.
func Short(s string, width int) string {
	s = Text(s)
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	n := 0
	for i := range s {
		if n++; n == width {
			return s[:i] + "…"
		}
	}
	return s
}

// Count writes a number with its noun: "1 file", "3 files".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
