package spec

import (
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseActions(t *testing.T) {
	for value, want := range map[string][]Action{
		"signal:SIGHUP":                  {{Signal: unix.SIGHUP}},
		"signal:HUP":                     {{Signal: unix.SIGHUP}},
		"signal:1":                       {{Signal: unix.SIGHUP}},
		"signal:40":                      {{Signal: unix.Signal(40)}},
		"signal:USR1@puma: worker":       {{Signal: unix.SIGUSR1, Comm: "puma: worker"}},
		"exec:/bin/refresh  --all":       {{Exec: []string{"/bin/refresh", "--all"}}},
		"signal:HUP ; exec:refresh a@b ": {{Signal: unix.SIGHUP}, {Exec: []string{"refresh", "a@b"}}},
	} {
		got, err := parseActions(value)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v, want %v", value, got, err, want)
		}
	}
	for value, words := range map[string]string{
		"":                            errGrammar.Error(),
		"signal:SIGHUP;":              errGrammar.Error(),
		"SIGHUP":                      errGrammar.Error(),
		"signal:":                     "no signal",
		"signal:0":                    "no signal",
		"signal:65":                   "no signal",
		"signal:-1":                   "no signal",
		"signal:sighup":               "no signal",
		"signal:KILL":                 "SIGKILL would end or stop",
		"signal:STOP":                 "would end or stop",
		"signal:HUP@":                 "process name",
		"signal:HUP@sixteen-bytes-xx": "process name",
		"exec:":                       "no command",
		"exec:   ":                    "no command",
		"exec:a\x00b":                 "no command",
		strings.Repeat("signal:HUP;", 16) + "signal:HUP": "at most 16",
	} {
		_, err := parseActions(value)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q", value, err, words)
		}
	}
}

// FuzzParseActions holds that what is accepted reads back as itself.
func FuzzParseActions(f *testing.F) {
	for _, seed := range []string{"signal:SIGHUP", "signal:USR1@x;exec:/bin/a b", "signal:64", ";", "exec:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		actions, err := parseActions(value)
		if err != nil {
			return
		}
		var parts []string
		for _, a := range actions {
			parts = append(parts, a.String())
		}
		again, err := parseActions(strings.Join(parts, ";"))
		if err != nil || !reflect.DeepEqual(again, actions) {
			t.Fatalf("%q: %v reads back as %v, %v", value, actions, again, err)
		}
	})
}
