package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. In the file it is a number, or a text with a unit:
// "50GiB".
type Size int64

// units are the suffixes of sizes; longer ones first.
var units = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(string(text), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		*s = Size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%.80q is no size: a whole number of bytes, or of KiB, MiB, GiB, TiB, kB, MB, GB or TB, such as \"50GiB\"; 0 for no limit", text)
}

// Duration is a length of time. In the file it is a text such as "90s", "12h" or
// "30d".
type Duration time.Duration

const day = 24 * time.Hour

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err == nil && n >= 0 && n <= int64(math.MaxInt64/day) {
			*d = Duration(n) * Duration(day)
			return nil
		}
	} else if v, err := time.ParseDuration(string(text)); err == nil && v >= 0 {
		*d = Duration(v)
		return nil
	}
	return fmt.Errorf("%.80q is no duration: such as \"90s\", \"12h\" or \"30d\"; \"0\" for no limit", text)
}
