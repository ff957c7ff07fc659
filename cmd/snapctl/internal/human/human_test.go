package human

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.00 KiB", 1536: "1.50 KiB",
		10230: "9.99 KiB", 10239: "10.0 KiB", 102399: "100 KiB", 1<<20 - 1: "1.00 MiB", 215 << 20: "215 MiB",
		5 << 30: "5.00 GiB", math.MaxInt64: "8.00 EiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 999 * time.Millisecond: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m",
		119 * time.Minute: "119m", 2 * time.Hour: "2h", 47 * time.Hour: "47h", 2 * day: "2d", 729 * day: "729d", 730 * day: "2y",
	} {
		if got := Age(d); got != want {
			t.Errorf("Age(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestMilliseconds(t *testing.T) {
	for ms, want := range map[float64]string{
		0: "0.00 ms", 0.424: "0.42 ms", 9.999: "10.0 ms", 31.84: "31.8 ms", 99.96: "100 ms", 999.4: "999 ms", 999.6: "1.00 s", 2530: "2.53 s", 61000: "61.0 s",
	} {
		if got := Milliseconds(ms); got != want {
			t.Errorf("Milliseconds(%v) = %q, want %q", ms, got, want)
		}
	}
}

func TestTime(t *testing.T) {
	at := time.Date(2026, 7, 1, 14, 0, 5, 9, time.FixedZone("east", 7200))
	if got, want := Time(at), "2026-07-01 12:00:05 UTC"; got != want {
		t.Errorf("Time = %q, want %q", got, want)
	}
}

func TestText(t *testing.T) {
	for s, want := range map[string]string{
		"":                   "",
		"plain – text":       "plain – text",
		"a\nb\tc":            `a\nb\tc`,
		"\x1b[31mred":        `\x1b[31mred`,
		"bad \xff byte":      `bad \xff byte`,
		"\u202egnp.exe":      `\u202egnp.exe`,
		"replacement \ufffd": `replacement \ufffd`,
	} {
		if got := Text(s); got != want {
			t.Errorf("Text(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestShort(t *testing.T) {
	for _, c := range []struct {
		s     string
		width int
		want  string
	}{
		{"", 4, ""}, {"four", 4, "four"}, {"fives", 4, "fiv…"}, {"äöüßé", 4, "äöü…"}, {"a\nb", 3, `a\…`},
	} {
		if got := Short(c.s, c.width); got != c.want {
			t.Errorf("Short(%q, %d) = %q, want %q", c.s, c.width, got, c.want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 files", 1: "1 file", 2: "2 files"} {
		if got := Count(n, "file"); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}

func FuzzShort(f *testing.F) {
	for _, s := range []string{"", "plain", "a\x1b[2Jb", "\xff\xfe", "äöü", "\u202e"} {
		f.Add(s, 8)
	}
	f.Fuzz(func(t *testing.T, s string, width int) {
		if width < 1 {
			return
		}
		got := Short(s, width)
		if n := utf8.RuneCountInString(got); n > width {
			t.Fatalf("Short(%q, %d) has %d characters", s, width, n)
		}
		if strings.ContainsFunc(got, unsafe) {
			t.Fatalf("Short(%q, %d) = %q holds a character that is not printable", s, width, got)
		}
	})
}
