package criu

import (
	"time"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// Numbers in a file_entry (images/fdinfo.proto) and in a timerfd_entry
// (images/timerfd.proto).
const (
	fileTimer = 12

	timerClock    = 4
	timerFlags    = 6
	timerSeconds  = 7
	timerNanos    = 8
	timerInterval = 9 // seconds, and after it nanoseconds
)

const (
	clockRealtime      = 0
	clockRealtimeAlarm = 8
	// timerAbsolute is TFD_TIMER_ABSTIME of timerfd_settime(2).
	timerAbsolute = 1
	// farAway, in seconds, is more than a Duration holds for sure; such a timer is left alone.
	farAway = 1 << 32
)

// MendTimers changes what the images in dir, a directory that Stage has filled, tell of timer
// descriptors (timerfd_create(2)), for a restore that comes age after the dump.
//
// The kernel tells how long a timer has to run, and CRIU sets it to that again. That is
// wrong of three kinds of timers. A periodic one whose expiry nobody has read yet has 0
// to run, which would turn it off for good. One for a time of the day runs for as long as it
// would have run at the dump. And one for a time that has come, which is off, would
// expire again.
func MendTimers(dir string, age time.Duration) error {
	return rewriteImage(dir, "files.img", func(file image.Message) (image.Message, error) {
		if file.Find(fileTimer) == nil {
			return nil, nil
		}
		timer, err := image.Parse(file.Text(fileTimer))
		if err != nil || !mendTimer(&timer, age) {
			return nil, err
		}
		file.SetText(fileTimer, timer.Encode())
		return file, nil
	})
}

// mendTimer changes a timerfd_entry, and says whether it had to.
func mendTimer(timer *image.Message, age time.Duration) bool {
	v := timer.Number
	expired := v(timerSeconds) == 0 && v(timerNanos) == 0
	periodic := v(timerInterval) != 0 || v(timerInterval+1) != 0
	absolute := v(timerFlags)&timerAbsolute != 0
	ofDay := v(timerClock) == clockRealtime || v(timerClock) == clockRealtimeAlarm
	switch {
	case expired && periodic && !absolute:
		timer.Set(timerNanos, 1)
	case expired && !periodic && absolute:
		timer.Set(timerFlags, v(timerFlags)&^timerAbsolute)
	case !expired && absolute && ofDay && age > 0 && v(timerSeconds) < farAway:
		left := max(1, time.Duration(v(timerSeconds))*time.Second+time.Duration(v(timerNanos))-age)
		timer.Set(timerSeconds, uint64(left/time.Second))
		timer.Set(timerNanos, uint64(left%time.Second))
	default:
		return false
	}
	return true
}
