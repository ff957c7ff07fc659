package doctor

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/checkpoint/survey"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/record"
	"github.com/containerd-snap/snap/oci/spec"
)

// ContainerResult says whether a running container can be captured.
type ContainerResult struct {
	Namespace string `json:"namespace"`
	Container string `json:"container"`
	// PID is its first process, Processes the number of those that a checkpoint holds.
	PID       int `json:"pid"`
	Processes int `json:"processes"`
	// Capturable says that nothing stands in the way.
	Capturable bool             `json:"capturable"`
	Findings   []survey.Finding `json:"findings"`
}

// ErrEnded is returned where the container's program does not run.
var ErrEnded = errors.New("the container does not run")

// Container looks at a running container. Errors wrap checkpoint.ErrNotFound if no start of
// it is recorded, and ErrEnded if it does not run.
func Container(st *store.Store, defaults spec.Settings, namespace, id string) (ContainerResult, error) {
	start, err := record.Find(st, namespace, id)
	if err != nil {
		return ContainerResult{}, err
	}
	id = start.Container
	r := ContainerResult{Namespace: namespace, Container: id, PID: start.PID, Findings: []survey.Finding{}}
	ended := func(err error) error {
		return fmt.Errorf("look at container %s: %w: start it first; `snapctl explain -n %s %s` tells of its last start (%w)", id, ErrEnded, namespace, id, err)
	}
	if start.Error != "" {
		return r, ended(errors.New("its last start failed: " + start.Error))
	}
	oci, err := spec.Load(start.Bundle)
	if errors.Is(err, os.ErrNotExist) {
		return r, ended(err)
	}
	if err != nil {
		return r, fmt.Errorf("look at container %s: %w", id, err)
	}
	// As the shim does, which mounts more than the spec says.
	settings, err := spec.ParseSettings(oci.Annotations, defaults)
	if err == nil {
		err = settings.MountIdentity(oci, "")
	}
	if err != nil {
		return r, fmt.Errorf("look at container %s: %w", id, err)
	}
	snapshot, err := survey.Gather(oci, settings.TCP, start.PID, st.Root())
	if errors.Is(err, os.ErrNotExist) {
		return r, ended(err)
	}
	if err != nil {
		return r, fmt.Errorf("look at container %s: %w", id, err)
	}
	r.Processes = len(snapshot.Processes)
	r.Findings = append(r.Findings, survey.Judge(snapshot)...)
	r.Capturable = survey.Capturable(r.Findings)
	return r, nil
}

var containerMarks = map[survey.Level]string{survey.Note: "·", survey.Warning: marks[Warning], survey.Problem: marks[Problem]}

// Write writes it for people: what stands in the way, a line each and the remedy below it.
func (r ContainerResult) Write(w io.Writer) error {
	for _, f := range r.Findings {
		who := "container"
		if f.PID != 0 {
			who = fmt.Sprintf("process %d (%s)", f.PID, f.Command)
		}
		what := f.Words
		if f.Resource != "" {
			what = f.Resource + ": " + what
		}
		if f.More > 0 {
			what += fmt.Sprintf(" (and %d more like it)", f.More)
		}
		if _, err := fmt.Fprintf(w, "%s %s: %s\n", containerMarks[f.Level], human.Text(who), human.Text(what)); err != nil {
			return err
		}
		if f.Remedy != "" {
			fmt.Fprintf(w, "  → %s\n", f.Remedy)
		}
	}
	verdict := marks[OK] + " nothing was found that stands in the way of a capture"
	if !r.Capturable {
		verdict = marks[Problem] + " it cannot be captured as it is"
	}
	_, err := fmt.Fprintf(w, "%s (%s, %s)\n", verdict, human.Text(r.Container), processes(r.Processes))
	return err
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}

// Problems is the number of findings that stand in the way.
func (r ContainerResult) Problems() int {
	n := 0
	for _, f := range r.Findings {
		if f.Level == survey.Problem {
			n++
		}
	}
	return n
}
