// Package record finds the record of a container's last start, by which the
// operator's command knows a container, and says what to do where there is none.
// It has no state and no locks.
package record

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
)

// maxHints is the number of other containers that an error names.
const maxHints = 3

// Find returns the record of the last start of a container, whose full id is
// given. Its error wraps checkpoint.ErrNotFound if there is none; it then names
// the containers that may have been meant.
func Find(st *store.Store, namespace, container string) (checkpoint.Start, error) {
	r, err := st.Start(namespace, container)
	if !errors.Is(err, checkpoint.ErrNotFound) {
		return r, err
	}
	remedy := "either another runtime runs it: start it with --runtime io.containerd.snap.v2; or this runtime keeps its records elsewhere: compare `snapctl doctor`"
	if hints := similar(st, container); len(hints) > 0 {
		remedy = "did you mean " + strings.Join(hints, ", or ") + "?"
	}
	return checkpoint.Start{}, fmt.Errorf("find container %s in namespace %s: %w in store %s; %s", container, namespace, errNoRecord{}, st.Root(), remedy)
}

// errNoRecord is a checkpoint.ErrNotFound in words that fit a container.
type errNoRecord struct{}

func (errNoRecord) Error() string        { return "no start of it is recorded" }
func (errNoRecord) Is(target error) bool { return target == checkpoint.ErrNotFound }

// similar returns the containers, as arguments of a command, that have the id in
// another namespace or an id that begins with it, the last started first.
func similar(st *store.Store, container string) []string {
	starts, err := st.Starts()
	if err != nil {
		return nil // a hint less
	}
	var hints []string
	for _, s := range starts {
		if strings.HasPrefix(s.Container, container) && len(hints) < maxHints {
			hints = append(hints, fmt.Sprintf("%s -n %s", s.Container, s.Namespace))
		}
	}
	return hints
}
