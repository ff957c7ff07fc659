package integration

import (
	"github.com/containerd-snap/snap/test/harness/run"
)

// What nearly every test uses, by short names.

type (
	container  = run.Container
	execution  = run.Execution
	output     = run.Output
	want       = run.Want
	probeState = run.ProbeState
)

const (
	busyboxImage = run.BusyboxImage
	probeImage   = run.ProbeImage
)

var (
	deadline      = run.Deadline
	newContainer  = run.New
	makeContainer = run.Make
	create        = run.Create
	start         = run.Start
	probeOf       = run.Probe
	shell         = run.Shell
	testContext   = run.Context
	eventually    = run.Eventually
	openStore     = run.OpenStore
	serial        = run.Serial
	snapctl       = run.Snapctl
)
