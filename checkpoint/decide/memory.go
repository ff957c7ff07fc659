package decide

import (
	"errors"
	"fmt"

	"github.com/containerd-snap/snap/checkpoint"
)

// ErrUnavailable is a way for memory to come back that was asked for and that the
// checkpoint does not offer.
var ErrUnavailable = errors.New("memory=mapped was asked for")

// chooseMemory says how the memory of a checkpoint comes back, and why so.
func chooseMemory(mode checkpoint.MemoryMode, m checkpoint.Memory) (checkpoint.MemoryMode, string, error) {
	can := m.Form == checkpoint.MemoryMapped
	reason := m.Reason
	if reason == "" {
		reason = "the checkpoint does not say that its memory may be mapped"
	}
	switch {
	case mode == checkpoint.MemoryCopy, mode == checkpoint.MemoryLazy:
		return mode, fmt.Sprintf("memory=%s was asked for", mode), nil
	case mode == checkpoint.MemoryMapped && can:
		return checkpoint.MemoryMapped, "memory=mapped was asked for", nil
	case mode == checkpoint.MemoryMapped:
		return "", "", fmt.Errorf("%w, and the checkpoint's memory is in the copy form (%s); take a checkpoint of a container with memory=mapped", ErrUnavailable, reason)
	case can && m.Safe:
		return checkpoint.MemoryMapped, reason, nil
	}
	return checkpoint.MemoryCopy, reason, nil
}

// memory completes an answer that is a restore. What was asked for and cannot be is a
// reason to boot, or an error where a restore was demanded.
func (a *Answer) memory(mode checkpoint.MemoryMode) error {
	var err error
	a.Memory, a.MemoryReason, err = chooseMemory(mode, a.Entry.Checkpoint.Memory)
	if err == nil || a.Decision.Demanded {
		return err
	}
	a.Entry = nil
	a.Decision = checkpoint.Decision{Action: checkpoint.Boot, Reason: err.Error(), Verdicts: a.Decision.Verdicts}
	return nil
}
