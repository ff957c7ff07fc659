package criu

import (
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// timer is what the test sets of a timerfd_entry.
type timer struct{ clock, flags, seconds, nanos, interval uint64 }

func (x timer) entry() []byte {
	var m image.Message
	for num, v := range map[protowire.Number]uint64{1: 7, 2: 2, 4: x.clock, 5: 1, 6: x.flags, 7: x.seconds, 8: x.nanos, 9: 0, 10: x.interval} {
		m.Set(num, v)
	}
	// A fown_entry, in which nothing may be taken for the timer's.
	m.SetText(3, []byte{0x38, 99})
	return m.Encode()
}

// filesWith are images whose files.img has the timers, each between two other files.
func filesWith(t testing.TB, timers ...timer) string {
	t.Helper()
	other := message(1, 1, 2, 9, 3, "a regular file")
	recs := [][]byte{other}
	for _, x := range timers {
		recs = append(recs, message(1, 17, 2, 7, fileTimer, x.entry()), other)
	}
	return plantImages(t, map[string][]byte{"files.img": imageOf("files", recs...)})
}

// timersOf reads them back.
func timersOf(t *testing.T, dir string) []timer {
	t.Helper()
	files, err := messages(dir, "files.img")
	if err != nil {
		t.Fatal(err)
	}
	var all []timer
	for _, file := range files {
		if file.Find(fileTimer) == nil {
			continue
		}
		v, err := numbers(file.Text(fileTimer))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, timer{v[4], v[6], v[7], v[8], v[10]})
	}
	return all
}

func TestMendTimers(t *testing.T) {
	const monotonic, absolute, cancelable = 1, timerAbsolute, 2
	for name, c := range map[string]struct {
		timer, want timer
		age         time.Duration
	}{
		"running":                     {timer{monotonic, 0, 5, 6, 0}, timer{monotonic, 0, 5, 6, 0}, time.Hour},
		"off":                         {timer{monotonic, 0, 0, 0, 0}, timer{monotonic, 0, 0, 0, 0}, time.Hour},
		"periodic":                    {timer{monotonic, 0, 0, 9, 50}, timer{monotonic, 0, 0, 9, 50}, time.Hour},
		"periodic, expired":           {timer{monotonic, 0, 0, 0, 50}, timer{monotonic, 0, 0, 1, 50}, 0},
		"periodic of the day":         {timer{clockRealtime, absolute, 0, 0, 50}, timer{clockRealtime, absolute, 0, 0, 50}, time.Hour},
		"absolute, expired":           {timer{monotonic, absolute, 0, 0, 0}, timer{monotonic, 0, 0, 0, 0}, 0},
		"of the day, expired":         {timer{clockRealtime, absolute | cancelable, 0, 0, 0}, timer{clockRealtime, cancelable, 0, 0, 0}, time.Hour},
		"of the day":                  {timer{clockRealtime, absolute, 3600, 7, 0}, timer{clockRealtime, absolute, 3588, 7, 0}, 12 * time.Second},
		"of the day, that has come":   {timer{clockRealtimeAlarm, absolute, 10, 7, 0}, timer{clockRealtimeAlarm, absolute, 0, 1, 0}, time.Hour},
		"of the day, at once":         {timer{clockRealtime, absolute, 10, 7, 0}, timer{clockRealtime, absolute, 10, 7, 0}, 0},
		"absolute on another clock":   {timer{monotonic, absolute, 10, 7, 0}, timer{monotonic, absolute, 10, 7, 0}, time.Hour},
		"relative to the time of day": {timer{clockRealtime, 0, 10, 7, 0}, timer{clockRealtime, 0, 10, 7, 0}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			first := timer{monotonic, 0, 1, 1, 0}
			dir := filesWith(t, first, c.timer)
			if err := MendTimers(dir, c.age); err != nil {
				t.Fatal(err)
			}
			if got := timersOf(t, dir); !slices.Equal(got, []timer{first, c.want}) {
				t.Errorf("timers %+v, want the second to be %+v", got, c.want)
			}
			// Nothing is left to correct.
			if err := MendTimers(dir, 0); err != nil {
				t.Fatal(err)
			}
			if got := timersOf(t, dir); got[1] != c.want {
				t.Errorf("corrected twice: %+v", got)
			}
		})
	}
}

func FuzzMendTimers(f *testing.F) {
	f.Add(timer{interval: 50}.entry(), int64(time.Hour))
	f.Add(timer{flags: timerAbsolute, seconds: 9}.entry(), int64(time.Hour))
	f.Fuzz(func(t *testing.T, entry []byte, age int64) {
		before, err := numbers(entry)
		if err != nil {
			return
		}
		m, err := image.Parse(entry)
		if err != nil {
			t.Fatal(err)
		}
		changed := mendTimer(&m, time.Duration(age))
		after, err := numbers(m.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if !changed && !maps.Equal(after, before) {
			t.Errorf("unchanged, it is %v, and was %v", after, before)
		}
		for num, v := range after {
			if v != before[num] && num != timerFlags && num != timerSeconds && num != timerNanos {
				t.Errorf("field %d was %d, is %d", num, before[num], v)
			}
		}
		if after[timerNanos] >= uint64(time.Second) && before[timerNanos] < uint64(time.Second) {
			t.Errorf("%d nanoseconds", after[timerNanos])
		}
	})
}

// numbers returns the values of a message's varints by their field number.
func numbers(msg []byte) (map[int]uint64, error) {
	fields, err := image.Parse(msg)
	v := map[int]uint64{}
	for _, f := range fields {
		v[int(f.Num)] = f.Value
	}
	return v, err
}
