package spec

import (
	"cmp"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/ready"
)

// defaulted is what holds beside what a test is about.
func defaulted(s Settings) Settings {
	d := DefaultSettings()
	s.ReadyTimeout, s.Memory, s.TCP = cmp.Or(s.ReadyTimeout, d.ReadyTimeout), cmp.Or(s.Memory, d.Memory), cmp.Or(s.TCP, d.TCP)
	return s
}

func TestParseSettings(t *testing.T) {
	const web = criContainerName
	for name, test := range map[string]struct {
		in   map[string]string
		want Settings
	}{
		"nothing":         {nil, Settings{Restore: IfPresent}},
		"foreign":         {map[string]string{"a": "b", "io.containerd.snap.v2": "x", "io.containerd.snap.v3/restore": "x"}, Settings{Restore: IfPresent}},
		"required":        {map[string]string{Prefix + "restore": "Required"}, Settings{Restore: Required}},
		"never":           {map[string]string{Prefix + "restore": "Never"}, Settings{Restore: Never}},
		"if present":      {map[string]string{Prefix + "restore": "IfPresent"}, Settings{Restore: IfPresent}},
		"checkpoint":      {map[string]string{Prefix + "checkpoint": "web"}, Settings{Restore: IfPresent, Checkpoint: "web"}},
		"digest":          {map[string]string{Prefix + "checkpoint": "sha256:" + strings.Repeat("a", 64)}, Settings{Restore: IfPresent, Checkpoint: "sha256:" + strings.Repeat("a", 64)}},
		"both":            {map[string]string{Prefix + "checkpoint": "web", Prefix + "restore": "Required"}, Settings{Restore: Required, Checkpoint: "web"}},
		"addressed":       {map[string]string{web: "web", Prefix + "restore.web": "Never"}, Settings{Restore: Never}},
		"overrides":       {map[string]string{web: "web", Prefix + "restore.web": "Never", Prefix + "restore": "Required"}, Settings{Restore: Never}},
		"other container": {map[string]string{web: "db", Prefix + "restore.web": "Never", Prefix + "restore": "Required"}, Settings{Restore: Required}},
		"what comes after": {map[string]string{Prefix + "after-restore": "signal:HUP;exec:/bin/a b", Prefix + "identity": "/run/snap"},
			Settings{Restore: IfPresent, AfterRestore: []Action{{Signal: unix.SIGHUP}, {Exec: []string{"/bin/a", "b"}}}, Identity: "/run/snap"}},
		"no container": {map[string]string{Prefix + "restore.web": "Never", Prefix + "checkpoint.web": "x"}, Settings{Restore: IfPresent}},
		"memory":       {map[string]string{Prefix + "memory": "mapped"}, Settings{Restore: IfPresent, Memory: checkpoint.MemoryMapped}},
		"each its own": {map[string]string{web: "web", Prefix + "checkpoint.web": "w", Prefix + "checkpoint.db": "d", Prefix + "restore.db": "Never"},
			Settings{Restore: IfPresent, Checkpoint: "w"}},
		"an address overrides a conflict": {map[string]string{web: "web", Prefix + "restore": "Never", Prefix + "restore.web": "Required", Prefix + "checkpoint.web": "w"},
			Settings{Restore: Required, Checkpoint: "w"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseSettings(test.in, DefaultSettings())
			if err != nil {
				t.Fatal(err)
			}
			if want := defaulted(test.want); !reflect.DeepEqual(got, want) {
				t.Errorf("settings are %+v, want %+v", got, want)
			}
		})
	}
}

func TestParseCaptureSettings(t *testing.T) {
	for name, test := range map[string]struct {
		in   map[string]string
		want Settings
	}{
		"on ready": {map[string]string{"capture": "OnReady", "ready": "http://:8000/ok", "ready-timeout": "90s", "warm": "http://:8000/*20"},
			Settings{Capture: Capture{OnReady: true}, Ready: ready.Probe{Kind: ready.HTTP, Text: "http://127.0.0.1:8000/ok"},
				ReadyTimeout: 90 * time.Second, Warm: ready.Warm{URL: "http://127.0.0.1:8000/", Times: 20}}},
		"every":           {map[string]string{"capture": "Every=10m", "resume-key": "job/7"}, Settings{Capture: Capture{Every: 10 * time.Minute}, ResumeKey: "job/7"}},
		"never":           {map[string]string{"capture": "Never"}, Settings{}},
		"one for another": {map[string]string{"capture": "Every=10m", "capture.web": "OnReady"}, Settings{Capture: Capture{OnReady: true}}},
	} {
		in := map[string]string{criContainerName: "web"}
		for k, v := range test.in {
			in[Prefix+k] = v
		}
		test.want.Restore = IfPresent
		if got, err := ParseSettings(in, DefaultSettings()); err != nil || !reflect.DeepEqual(got, defaulted(test.want)) {
			t.Errorf("%s: settings are %+v (%v), want %+v", name, got, err, defaulted(test.want))
		}
	}
	for c, want := range map[Capture]string{{}: "Never", {OnReady: true}: "OnReady", {Every: 10 * time.Minute}: "Every=10m0s"} {
		if c.String() != want {
			t.Errorf("%+v reads %s, want %s", c, c, want)
		}
	}
}

func TestCaptureSettingsReject(t *testing.T) {
	for annotation, words := range map[string]string{
		"capture=Always":       "allowed is Never, OnReady or Every=DURATION (at least 1s)",
		"capture=Every":        "allowed is Never, OnReady or Every=DURATION",
		"capture=Every=":       "the duration is none; they read as 500ms, 90s or 1h30m; allowed is Never, OnReady or Every=DURATION",
		"capture=Every=10":     "the duration is none",
		"capture=Every=10ms":   "too short, the shortest is 1s",
		"ready=port:80":        "it begins like none of them; allowed is tcp://[HOST]:PORT, http(s)://[HOST]:PORT/PATH, exec:COMMAND, log:REGEXP, file:/PATH or delay:DURATION",
		"ready=log:(":          "missing closing )",
		"ready-timeout=soon":   "the duration is none",
		"warm=http://:8000/*0": "the count is none; allowed is http(s)://[HOST]:PORT/PATH, and *COUNT",
		"resume-key=a b":       "a word of at most 255 bytes",
	} {
		key, value, _ := strings.Cut(annotation, "=")
		_, err := ParseSettings(map[string]string{Prefix + key: value}, DefaultSettings())
		if !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("%s: %v", annotation, err)
			continue
		}
		for _, part := range []string{Prefix + key + "=", strconv.Quote(value), words} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not name %q", annotation, err, part)
			}
		}
	}
}

func TestParseSettingsRejects(t *testing.T) {
	for name, test := range map[string]struct {
		in    map[string]string
		names []string
	}{
		"unknown key":          {map[string]string{Prefix + "hope": "yes"}, []string{Prefix + "hope", "yes", "allowed keys are restore, checkpoint"}},
		"empty key":            {map[string]string{Prefix: "x"}, []string{Prefix, "restore"}},
		"unknown value":        {map[string]string{Prefix + "restore": "always"}, []string{Prefix + "restore", "always", "IfPresent, Required, Never"}},
		"another case":         {map[string]string{Prefix + "restore": "never"}, []string{`"never"`}},
		"empty value":          {map[string]string{Prefix + "restore": ""}, []string{`""`, "IfPresent"}},
		"empty reference":      {map[string]string{Prefix + "checkpoint": ""}, []string{Prefix + "checkpoint", "name or the digest"}},
		"reference with blank": {map[string]string{Prefix + "checkpoint": "a b"}, []string{`"a b"`}},
		"long reference":       {map[string]string{Prefix + "checkpoint": strings.Repeat("a", maxReference+1)}, []string{"name or the digest"}},
		"no address":           {map[string]string{Prefix + "restore.": "Never"}, []string{Prefix + "restore.", "container name"}},
		"other's value":        {map[string]string{criContainerName: "web", Prefix + "restore.db": "Nope"}, []string{Prefix + "restore.db", "Nope"}},
		"other's key":          {map[string]string{criContainerName: "web", Prefix + "hope.db": "lazy"}, []string{Prefix + "hope.db", "lazy"}},
		"conflict":             {map[string]string{Prefix + "restore": "Never", Prefix + "checkpoint": "web"}, []string{Prefix + "restore=Never", Prefix + `checkpoint="web"`}},
		"conflict by address":  {map[string]string{criContainerName: "a", Prefix + "restore.a": "Never", Prefix + "checkpoint": "web"}, []string{"address each"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSettings(test.in, DefaultSettings())
			if !errors.Is(err, checkpoint.ErrInvalid) {
				t.Fatalf("error is %v, want ErrInvalid", err)
			}
			for _, part := range test.names {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not name %q", err, part)
				}
			}
		})
	}
}

func TestAnnotationsOverrideTheDefaults(t *testing.T) {
	defaults := Settings{Restore: Never, ResumeKey: "k"}
	for name, test := range map[string]struct {
		in   map[string]string
		want Settings
	}{
		"nothing":      {nil, defaults},
		"restore":      {map[string]string{Prefix + "restore": "Required"}, Settings{Restore: Required, ResumeKey: "k"}},
		"a checkpoint": {map[string]string{Prefix + "checkpoint": "web"}, Settings{Restore: IfPresent, Checkpoint: "web", ResumeKey: "k"}},
		"resume key":   {map[string]string{Prefix + "resume-key": "job"}, Settings{Restore: Never, ResumeKey: "job"}},
	} {
		if got, err := ParseSettings(test.in, defaults); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: settings are %+v (%v), want %+v", name, got, err, test.want)
		}
	}
}

func TestSetNamesWhatIsAllowed(t *testing.T) {
	for _, test := range []struct{ key, value, want string }{
		{"restore", "x", `setting restore="x": allowed is one of IfPresent, Required, Never`},
		{"hope", "x", `setting hope="x": allowed keys are restore, `},
	} {
		s := DefaultSettings()
		if err := s.Set(test.key, test.value); !errors.Is(err, checkpoint.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s=%s: %v, want %q", test.key, test.value, err, test.want)
		}
		if !reflect.DeepEqual(s, DefaultSettings()) {
			t.Errorf("%s=%s changed the settings to %+v", test.key, test.value, s)
		}
	}
	s := DefaultSettings()
	if err := s.Set("restore", "Never"); err != nil || s.Restore != Never {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestOwner(t *testing.T) {
	pod := func(name string) *specs.Spec {
		return &specs.Spec{Annotations: map[string]string{criPodNamespace: "prod", criPodName: name, criContainerName: "web"}}
	}
	plain := &specs.Spec{}
	for _, test := range []struct{ got, want string }{
		{Owner("ns", "c1", "", plain), "ns/container/c1"},
		{Owner("ns", "c1", "job/7", plain), "ns/key/job/7"},
		{Owner("k8s.io", "c1", "", pod("web-0")), "k8s.io/pods/prod/container/web-0/web"},
		{Owner("k8s.io", "c2", "", pod("web-1")), "k8s.io/pods/prod/container/web-1/web"},
		{Owner("k8s.io", "c1", "job", pod("web-0")), "k8s.io/pods/prod/key/job"},
		{Owner("k8s.io", "c1", "", &specs.Spec{Annotations: map[string]string{criContainerName: "web"}}), "k8s.io/container/c1"},
	} {
		if test.got != test.want {
			t.Errorf("owner is %s, want %s", test.got, test.want)
		}
	}
}

func TestParseSettingsReportsTheSameErrorEachTime(t *testing.T) {
	in := map[string]string{Prefix + "a": "1", Prefix + "b": "2", Prefix + "c": "3", Prefix + "restore": "x"}
	for range 50 {
		if _, err := ParseSettings(in, DefaultSettings()); err == nil || !strings.Contains(err.Error(), Prefix+"a=") {
			t.Fatalf("error is %v, want that of the first key", err)
		}
	}
}

func FuzzParseSettings(f *testing.F) {
	f.Add("restore", "Never", "checkpoint", "web", "web")
	f.Add("restore.web", "Required", "restore", "IfPresent", "web")
	f.Add("restore.", "", "checkpoint.web", "sha256:0", "")
	f.Add("capture", "OnReady", "\x00", "\xff", "a.b")
	f.Add("capture", "Every=10m", "ready", "log:^up", "web")
	f.Add("ready-timeout", "1h", "warm", "http://:80/*3", "web")
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2, container string) {
		got, err := ParseSettings(map[string]string{Prefix + key1: value1, Prefix + key2: value2, criContainerName: container}, DefaultSettings())
		if err != nil {
			if !errors.Is(err, checkpoint.ErrInvalid) || !reflect.DeepEqual(got, Settings{}) {
				t.Fatalf("got %+v and %v, want nothing and ErrInvalid", got, err)
			}
			return
		}
		switch got.Restore {
		case IfPresent, Required:
		case Never:
			if got.Checkpoint != "" {
				t.Fatal("a checkpoint together with Never")
			}
		default:
			t.Fatalf("policy %q", got.Restore)
		}
		if got.Checkpoint != "" && got.Checkpoint != value1 && got.Checkpoint != value2 {
			t.Fatalf("checkpoint %q comes from nowhere", got.Checkpoint)
		}
	})
}
