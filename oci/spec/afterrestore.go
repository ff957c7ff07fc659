package spec

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Action is what is done to a restored program before its start counts as one:
// either a signal is sent or a command is run in the container.
type Action struct {
	// Signal goes to init, or with Comm to every process of the container whose
	// name (as /proc/PID/comm tells, at most 15 bytes) it is. 0 for a command.
	Signal unix.Signal
	Comm   string
	// Exec is the command with its arguments; nil for a signal.
	Exec []string
}

// String writes the action as the annotation does.
func (a Action) String() string {
	switch {
	case a.Signal == 0:
		return actionExec + strings.Join(a.Exec, " ")
	case a.Comm != "":
		return actionSignal + signalName(a.Signal) + "@" + a.Comm
	}
	return actionSignal + signalName(a.Signal)
}

const (
	actionSignal = "signal:"
	actionExec   = "exec:"

	// maxActions bounds how many actions one annotation names.
	maxActions = 16
	// maxComm is the kernel's TASK_COMM_LEN without the end of the string.
	maxComm = 15
	// maxSignal is the last real-time signal.
	maxSignal = 64
)

// actionGrammar says in words what parseActions reads.
const actionGrammar = "signal:NAME, signal:NAME@COMM or exec:COMMAND ARG…, several separated by semicolons"

// parseActions reads `signal:SIGHUP;signal:USR1@worker;exec:/bin/refresh --all`.
// A command is split at white space; no shell reads it. Errors name
// the part that is wrong.
func parseActions(value string) ([]Action, error) {
	parts := strings.Split(value, ";")
	if len(parts) > maxActions {
		return nil, fmt.Errorf("%d actions; at most %d are allowed", len(parts), maxActions)
	}
	var actions []Action
	for _, part := range parts {
		a, err := parseAction(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		actions = append(actions, a)
	}
	return actions, nil
}

func parseAction(part string) (Action, error) {
	if command, ok := strings.CutPrefix(part, actionExec); ok {
		args := strings.Fields(command)
		if len(args) == 0 || strings.ContainsRune(command, 0) {
			return Action{}, fmt.Errorf("action %q: no command follows %s", part, actionExec)
		}
		return Action{Exec: args}, nil
	}
	target, ok := strings.CutPrefix(part, actionSignal)
	if !ok {
		return Action{}, errGrammar
	}
	name, comm, addressed := strings.Cut(target, "@")
	sig, err := parseSignal(name)
	if err != nil {
		return Action{}, fmt.Errorf("action %q: %w", part, err)
	}
	if addressed && (comm == "" || len(comm) > maxComm || strings.ContainsAny(comm, "\x00\n")) {
		return Action{}, fmt.Errorf("action %q: a process name of 1 to %d bytes must follow @", part, maxComm)
	}
	return Action{Signal: sig, Comm: comm}, nil
}

// parseSignal takes SIGHUP, HUP and 1.
func parseSignal(name string) (unix.Signal, error) {
	sig := unix.SignalNum(name)
	if sig == 0 {
		sig = unix.SignalNum("SIG" + name)
	}
	if n, err := strconv.Atoi(name); sig == 0 && err == nil && 0 < n && n <= maxSignal {
		sig = unix.Signal(n)
	}
	switch sig {
	case 0:
		return 0, fmt.Errorf("%q is no signal; use a name such as SIGHUP, or a number up to %d", name, maxSignal)
	case unix.SIGKILL, unix.SIGSTOP:
		return 0, fmt.Errorf("%s would end or stop the program; use a signal that it can handle", signalName(sig))
	}
	return sig, nil
}

func signalName(sig unix.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return strconv.Itoa(int(sig))
}
