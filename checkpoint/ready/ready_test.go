package ready

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseProbe(t *testing.T) {
	for value, want := range map[string]Probe{
		"tcp://:8000":                     {Kind: TCP, Address: "127.0.0.1:8000"},
		"tcp://10.0.0.7:80":               {Kind: TCP, Address: "10.0.0.7:80"},
		"tcp://[::1]:80":                  {Kind: TCP, Address: "[::1]:80"},
		"tcp://localhost:80":              {Kind: TCP, Address: "127.0.0.1:80"},
		"http://:8000":                    {Kind: HTTP, Text: "http://127.0.0.1:8000/"},
		"http://:8000/healthz?full=1#top": {Kind: HTTP, Text: "http://127.0.0.1:8000/healthz?full=1"},
		"http://[::1]:8443/a%20b":         {Kind: HTTP, Text: "http://[::1]:8443/a%20b"},
		"exec:test -e /run/ready":         {Kind: Exec, Text: "test -e /run/ready"},
		"exec:sh -c 'a && b'":             {Kind: Exec, Text: "sh -c 'a && b'"},
		"log:^ready: \\d+ms":              {Kind: Log, Text: "^ready: \\d+ms"},
		"log:a:b":                         {Kind: Log, Text: "a:b"},
		"file:/run/ready":                 {Kind: File, Text: "/run/ready"},
		"delay:1m30s":                     {Kind: Delay, After: 90 * time.Second},
	} {
		got, err := ParseProbe(value)
		if err != nil || got != want {
			t.Errorf("%s is %+v (%v), want %+v", value, got, err, want)
		}
	}
}

func TestParseProbeRefuses(t *testing.T) {
	for value, words := range map[string]string{
		"":                        "none of them",
		"ready":                   "none of them",
		"udp://:53":               "none of them",
		"https://:/":              "port",
		"TCP://:80":               "none of them",
		"tcp::80":                 "two slashes",
		"tcp://":                  "port",
		"tcp://:":                 "port",
		"tcp://:0":                "port",
		"tcp://:65536":            "port",
		"tcp://:http":             "[HOST]:PORT",
		"tcp://:80/x":             "[HOST]:PORT",
		"tcp://web:80":            "no address",
		"tcp://fe80::1%eth0:80":   "[HOST]:PORT",
		"http://:8000 /":          "no URL",
		"http:///x":               "port",
		"http://u:p@:80/":         "no URL",
		"http:x":                  "no URL",
		"exec:":                   "missing",
		"exec:  ":                 "missing",
		"exec:''":                 "missing",
		"exec:'a":                 "not finished",
		"exec:a\\":                "not finished",
		"log:":                    "empty expression",
		"log:(":                   "missing closing )",
		"file:run":                "begin with a slash",
		"file:":                   "begin with a slash",
		"delay:":                  "duration",
		"delay:5":                 "duration",
		"delay:-5s":               "too short",
		"delay:0s":                "too short",
		"delay:100000h":           "too long",
		"log:\xff":                "no text",
		"file:/a\x00b":            "no text",
		strings.Repeat("x", 5000): "longer",
	} {
		if got, err := ParseProbe(value); err == nil || !strings.Contains(err.Error(), words) || got != (Probe{}) {
			t.Errorf("%.40q is %+v (%v), want an error with %q", value, got, err, words)
		}
	}
}

func TestParseWarm(t *testing.T) {
	for value, want := range map[string]Warm{
		"http://:8000/path*20": {"http://127.0.0.1:8000/path", 20},
		"http://:8000":         {"http://127.0.0.1:8000/", 1},
		"http://[::1]:8443/*5": {"http://[::1]:8443/", 5},
	} {
		if got, err := ParseWarm(value); err != nil || got != want {
			t.Errorf("%s is %+v (%v), want %+v", value, got, err, want)
		}
	}
	for value, words := range map[string]string{
		"":                     "no URL",
		"tcp://:80":            "no URL",
		"http://:8000/*":       "count",
		"http://:8000/*0":      "count",
		"http://:8000/*-1":     "count",
		"http://:8000/*100001": "count",
		"http://:8000/*x":      "count",
		"*5":                   "no URL",
	} {
		if got, err := ParseWarm(value); err == nil || !strings.Contains(err.Error(), words) || got != (Warm{}) {
			t.Errorf("%s is %+v (%v), want an error with %q", value, got, err, words)
		}
	}
}

func TestWords(t *testing.T) {
	for command, want := range map[string][]string{
		"a b\tc":                {"a", "b", "c"},
		" a ":                   {"a"},
		`sh -c 'a "b" \c'`:      {"sh", "-c", `a "b" \c`},
		`"a b"c d\ e "f\"g"`:    {"a bc", "d e", `f"g`},
		`a '' ""`:               {"a", "", ""},
		`echo $HOME *.go ü`:     {"echo", "$HOME", "*.go", "ü"},
		"a \"x\ny\" 'it'\\''s'": {"a", "x\ny", "it's"},
	} {
		if got, err := Words(command); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s is %q (%v), want %q", command, got, err, want)
		}
	}
}

// What is read can be written, and is then read as the same.
func FuzzParseProbe(f *testing.F) {
	for _, seed := range []string{"tcp://:80", "http://:8000/x?y", "https://[::1]:1/%41", "exec:sh -c 'x'", "log:^a", "file:/x", "delay:1h", "tcp://[", "exec:\\", "log:("} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		p, err := ParseProbe(value)
		if err != nil {
			if p != (Probe{}) {
				t.Fatalf("%+v beside %v", p, err)
			}
			return
		}
		if p.Kind == Listening {
			t.Fatal("the default has no spelling")
		}
		if again, err := ParseProbe(p.String()); err != nil || again != p {
			t.Fatalf("%q is %+v, and written as %q it is %+v (%v)", value, p, p, again, err)
		}
	})
}

func FuzzParseWarm(f *testing.F) {
	f.Add("http://:8000/path*20")
	f.Add("https://[::1]:1/*1*2")
	f.Fuzz(func(t *testing.T, value string) {
		w, err := ParseWarm(value)
		if err != nil {
			return
		}
		if again, err := ParseWarm(w.String()); err != nil || again != w || w.Times < 1 {
			t.Fatalf("%q is %+v, and written as %q it is %+v (%v)", value, w, w, again, err)
		}
	})
}
