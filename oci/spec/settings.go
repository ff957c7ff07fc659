package spec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/ready"
)

// Policy says whether a container may, must or must not start from a
// checkpoint. It reads as Kubernetes' imagePullPolicy does.
type Policy string

// The valid policies.
const (
	// IfPresent restores if a registered checkpoint fits and boots otherwise.
	// It is the default.
	IfPresent Policy = "IfPresent"
	// Required restores, and fails the start if it cannot.
	Required Policy = "Required"
	// Never boots.
	Never Policy = "Never"
)

// TCP says what becomes of the TCP connections that a program holds at its
// capture.
type TCP string

// The valid choices.
const (
	// TCPClose leaves connections out: they are closed in a clone, and go on in the
	// captured program. It is the default.
	TCPClose TCP = "close"
	// TCPEstablished saves them, and restores them where the container has the
	// addresses that they need.
	TCPEstablished TCP = "established"
	// TCPRefuse refuses to capture a program that holds any.
	TCPRefuse TCP = "refuse"
)

// Settings is what is asked of Snap for one container: by its annotations, or
// where they are silent by the host's defaults.
type Settings struct {
	// Restore is one of the valid policies.
	Restore Policy
	// Checkpoint names the only checkpoint to restore from, by name or digest;
	// empty to choose by fingerprint.
	Checkpoint string
	// ResumeKey is the identity that the container's resume points belong to;
	// empty for its own (see Owner).
	ResumeKey string
	// TCP is one of the valid choices.
	TCP TCP
	// AfterRestore is what is done to the program after a restore, in order.
	AfterRestore []Action
	// Identity is where the directory that tells the program who it is gets
	// mounted, an absolute path; empty for nowhere.
	Identity string
	// Memory says how memory comes back at a restore, and which form a capture gives it.
	Memory checkpoint.MemoryMode
	// Capture says when the container is captured by itself.
	Capture Capture
	// Ready says how to see that the program is ready, ReadyTimeout how long that may
	// take, and Warm what it is asked for before its capture.
	Ready        ready.Probe
	ReadyTimeout time.Duration
	Warm         ready.Warm
}

// Capture says when a container is captured by itself: never, for the zero value.
type Capture struct {
	// OnReady: as soon as the program is ready, a template, unless there is one.
	OnReady bool
	// Every: resume points, at this interval, while the program runs.
	Every time.Duration
}

func (c Capture) String() string {
	switch {
	case c.OnReady:
		return captureOnReady
	case c.Every > 0:
		return captureEvery + c.Every.String()
	}
	return captureNever
}

// The values of the setting capture.
const (
	captureNever   = "Never"
	captureOnReady = "OnReady"
	captureEvery   = "Every="
)

// LeastEvery is the shortest interval between captures: each makes the program stand
// still for a moment.
const LeastEvery = time.Second

// DefaultSettings is what holds where nobody says otherwise.
func DefaultSettings() Settings {
	return Settings{Restore: IfPresent, TCP: TCPClose, Memory: checkpoint.MemoryAuto, ReadyTimeout: 5 * time.Minute}
}

// The keys that messages elsewhere in this package name.
const (
	keyRestore    = "restore"
	keyCheckpoint = "checkpoint"
)

// setting is one row of the table of settings.
type setting struct {
	// key is the annotation's, below Prefix, and the one in snap.toml.
	key string
	// grammar says in words what values are allowed, to follow "allowed is".
	grammar string
	// read reads a value, or says why it cannot: errGrammar if the grammar says
	// all that there is to say.
	read func(s *Settings, value string) error
}

// errGrammar is a value that is not of the setting's grammar.
var errGrammar = errors.New("not of the grammar")

// settings is the one table of what can be set per container.
var settings = []setting{
	{keyRestore, "one of IfPresent, Required, Never", func(s *Settings, v string) error {
		return oneOf(&s.Restore, v, IfPresent, Required, Never)
	}},
	{keyCheckpoint, "the name or the digest of a registered checkpoint", func(s *Settings, v string) error {
		return word(&s.Checkpoint, v, maxReference)
	}},
	{"resume-key", fmt.Sprintf("a word of at most %d bytes", maxReference), func(s *Settings, v string) error {
		return word(&s.ResumeKey, v, maxReference)
	}},
	{"tcp", "one of close, established, refuse", func(s *Settings, v string) error {
		return oneOf(&s.TCP, v, TCPClose, TCPEstablished, TCPRefuse)
	}},
	{"after-restore", actionGrammar, func(s *Settings, v string) (err error) {
		s.AfterRestore, err = parseActions(v)
		return err
	}},
	{"identity", "an absolute path in the container, clean and not / or below /proc or /sys", func(s *Settings, v string) error {
		return containerPath(&s.Identity, v)
	}},
	{"memory", "one of auto, copy, lazy, mapped", func(s *Settings, v string) error {
		return oneOf(&s.Memory, v, checkpoint.MemoryAuto, checkpoint.MemoryCopy, checkpoint.MemoryLazy, checkpoint.MemoryMapped)
	}},
	{"capture", fmt.Sprintf("Never, OnReady or Every=DURATION (at least %s)", LeastEvery), func(s *Settings, v string) error {
		return parseCapture(&s.Capture, v)
	}},
	{"ready", ready.ProbeGrammar, func(s *Settings, v string) (err error) {
		s.Ready, err = ready.ParseProbe(v)
		return err
	}},
	{"ready-timeout", "a DURATION (as 90s or 1h30m)", func(s *Settings, v string) (err error) {
		s.ReadyTimeout, err = ready.Duration(v, time.Second)
		return err
	}},
	{"warm", ready.WarmGrammar, func(s *Settings, v string) (err error) {
		s.Warm, err = ready.ParseWarm(v)
		return err
	}},
}

// maxReference bounds a reference to a checkpoint and a resume key, in bytes; the
// store's own rules for names are tighter.
const maxReference = 255

func parseCapture(to *Capture, value string) error {
	interval, every := strings.CutPrefix(value, captureEvery)
	switch {
	case every:
		d, err := ready.Duration(interval, LeastEvery)
		*to = Capture{Every: d}
		return err
	case value == captureOnReady:
		*to = Capture{OnReady: true}
	case value == captureNever:
		*to = Capture{}
	default:
		return errGrammar
	}
	return nil
}

// oneOf reads a value that is one of those allowed, in just that spelling.
func oneOf[T ~string](to *T, value string, allowed ...T) error {
	if !slices.Contains(allowed, T(value)) {
		return errGrammar
	}
	*to = T(value)
	return nil
}

// containerPath reads a path in the container at which something can be mounted.
func containerPath(to *string, value string) error {
	below := func(dir string) bool { return value == dir || strings.HasPrefix(value, dir+"/") }
	if err := word(to, value, maxReference); err != nil {
		return err
	}
	if !path.IsAbs(value) || path.Clean(value) != value || value == "/" || below("/proc") || below("/sys") {
		return errGrammar
	}
	return nil
}

// word reads printable text without blanks. What else a reference to a checkpoint
// must be, the store judges when it resolves it.
func word(to *string, value string, most int) error {
	odd := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	if value == "" || len(value) > most || strings.ContainsFunc(value, odd) {
		return errGrammar
	}
	*to = value
	return nil
}
