// Package record finds the record of a container's last start, by which the
// operator's command knows a container, and says what to do where there is none.
// It has no state and no locks.
package record

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
)

// maxHints is the number of other containers that an error names.
const maxHints = 3

// random is an id that a client drew, as nerdctl and the kubelet's do. Others are words, and
// stand for themselves.
var random = regexp.MustCompile(`^[0-9a-f]{64}$`)

// minPrefix is how much of such an id names a container, at least.
const minPrefix = 4

// Find returns the record of the last start of a container of a namespace, of which its id, its
// name, or the first digits of its id are given. Of more than one with a name it is the
// one that was started last. The error wraps checkpoint.ErrNotFound if there is none, and names those
// that may have been meant; checkpoint.ErrAmbiguous if the ids of several begin so.
func Find(st *store.Store, namespace, container string) (checkpoint.Start, error) {
	r, err := st.Start(namespace, container)
	if !errors.Is(err, checkpoint.ErrNotFound) {
		return r, err
	}
	starts, err := st.Starts()
	if err != nil {
		return checkpoint.Start{}, err
	}
	here := slices.DeleteFunc(slices.Clone(starts), func(s checkpoint.Start) bool { return s.Namespace != namespace })
	for _, s := range here {
		if s.Name == container {
			return s, nil
		}
	}
	if len(container) >= minPrefix {
		same := slices.DeleteFunc(beginning(here, container), func(s checkpoint.Start) bool { return !random.MatchString(s.Container) })
		switch len(same) {
		case 0:
		case 1:
			return same[0], nil
		default:
			return checkpoint.Start{}, fmt.Errorf("find container %s in namespace %s: %w: give more of %s", container, namespace, checkpoint.ErrAmbiguous, strings.Join(hints(same), ", or "))
		}
	}
	remedy := "either another runtime runs it: start it with --runtime io.containerd.snap.v2; or this runtime keeps its records elsewhere: compare `snapctl doctor`"
	if similar := hints(beginning(starts, container)); len(similar) > 0 {
		remedy = "did you mean " + strings.Join(similar, ", or ") + "?"
	}
	return checkpoint.Start{}, fmt.Errorf("find container %s in namespace %s: %w in store %s; %s", container, namespace, errNoRecord{}, st.Root(), remedy)
}

// errNoRecord is a checkpoint.ErrNotFound in words that fit a container.
type errNoRecord struct{}

func (errNoRecord) Error() string        { return "no start of it is recorded" }
func (errNoRecord) Is(target error) bool { return target == checkpoint.ErrNotFound }

// beginning returns the starts of containers whose ids begin with a text, the last started first.
func beginning(starts []checkpoint.Start, text string) []checkpoint.Start {
	return slices.DeleteFunc(slices.Clone(starts), func(s checkpoint.Start) bool { return !strings.HasPrefix(s.Container, text) })
}

// hints writes containers, not too many, as arguments of a command.
func hints(starts []checkpoint.Start) []string {
	var all []string
	for _, s := range starts[:min(len(starts), maxHints)] {
		all = append(all, fmt.Sprintf("%s -n %s", s.Container, s.Namespace))
	}
	return all
}
