package spec

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/checkpoint"
)

func TestParseSettings(t *testing.T) {
	const web = criContainerName
	for name, test := range map[string]struct {
		in   map[string]string
		want Settings
	}{
		"nothing":         {nil, Settings{IfPresent, ""}},
		"foreign":         {map[string]string{"a": "b", "io.containerd.snap.v2": "x", "io.containerd.snap.v3/restore": "x"}, Settings{IfPresent, ""}},
		"required":        {map[string]string{Prefix + "restore": "Required"}, Settings{Required, ""}},
		"never":           {map[string]string{Prefix + "restore": "Never"}, Settings{Never, ""}},
		"if present":      {map[string]string{Prefix + "restore": "IfPresent"}, Settings{IfPresent, ""}},
		"checkpoint":      {map[string]string{Prefix + "checkpoint": "web"}, Settings{IfPresent, "web"}},
		"digest":          {map[string]string{Prefix + "checkpoint": "sha256:" + strings.Repeat("a", 64)}, Settings{IfPresent, "sha256:" + strings.Repeat("a", 64)}},
		"both":            {map[string]string{Prefix + "checkpoint": "web", Prefix + "restore": "Required"}, Settings{Required, "web"}},
		"addressed":       {map[string]string{web: "web", Prefix + "restore.web": "Never"}, Settings{Never, ""}},
		"overrides":       {map[string]string{web: "web", Prefix + "restore.web": "Never", Prefix + "restore": "Required"}, Settings{Never, ""}},
		"other container": {map[string]string{web: "db", Prefix + "restore.web": "Never", Prefix + "restore": "Required"}, Settings{Required, ""}},
		"no container":    {map[string]string{Prefix + "restore.web": "Never", Prefix + "checkpoint.web": "x"}, Settings{IfPresent, ""}},
		"each its own": {map[string]string{web: "web", Prefix + "checkpoint.web": "w", Prefix + "checkpoint.db": "d", Prefix + "restore.db": "Never"},
			Settings{IfPresent, "w"}},
		"an address overrides a conflict": {map[string]string{web: "web", Prefix + "restore": "Never", Prefix + "restore.web": "Required", Prefix + "checkpoint.web": "w"},
			Settings{Required, "w"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseSettings(test.in)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("settings are %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestParseSettingsRejects(t *testing.T) {
	for name, test := range map[string]struct {
		in    map[string]string
		names []string
	}{
		"unknown key":          {map[string]string{Prefix + "capture": "OnReady"}, []string{Prefix + "capture", "OnReady", Prefix + "restore", Prefix + "checkpoint"}},
		"empty key":            {map[string]string{Prefix: "x"}, []string{Prefix + "restore"}},
		"unknown value":        {map[string]string{Prefix + "restore": "always"}, []string{Prefix + "restore", "always", "IfPresent, Required, Never"}},
		"another case":         {map[string]string{Prefix + "restore": "never"}, []string{`"never"`}},
		"empty value":          {map[string]string{Prefix + "restore": ""}, []string{`""`, "IfPresent"}},
		"empty reference":      {map[string]string{Prefix + "checkpoint": ""}, []string{Prefix + "checkpoint", "name or the digest"}},
		"reference with blank": {map[string]string{Prefix + "checkpoint": "a b"}, []string{`"a b"`}},
		"long reference":       {map[string]string{Prefix + "checkpoint": strings.Repeat("a", maxReference+1)}, []string{"name or the digest"}},
		"no address":           {map[string]string{Prefix + "restore.": "Never"}, []string{Prefix + "restore.", "container name"}},
		"other's value":        {map[string]string{criContainerName: "web", Prefix + "restore.db": "Nope"}, []string{Prefix + "restore.db", "Nope"}},
		"other's key":          {map[string]string{criContainerName: "web", Prefix + "memory.db": "lazy"}, []string{Prefix + "memory.db", "lazy"}},
		"conflict":             {map[string]string{Prefix + "restore": "Never", Prefix + "checkpoint": "web"}, []string{Prefix + "restore=Never", Prefix + `checkpoint="web"`}},
		"conflict by address":  {map[string]string{criContainerName: "a", Prefix + "restore.a": "Never", Prefix + "checkpoint": "web"}, []string{"address each"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSettings(test.in)
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

func TestParseSettingsReportsTheSameErrorEachTime(t *testing.T) {
	in := map[string]string{Prefix + "a": "1", Prefix + "b": "2", Prefix + "c": "3", Prefix + "restore": "x"}
	for range 50 {
		if _, err := ParseSettings(in); err == nil || !strings.Contains(err.Error(), Prefix+"a=") {
			t.Fatalf("error is %v, want that of the first key", err)
		}
	}
}

func FuzzParseSettings(f *testing.F) {
	f.Add("restore", "Never", "checkpoint", "web", "web")
	f.Add("restore.web", "Required", "restore", "IfPresent", "web")
	f.Add("restore.", "", "checkpoint.web", "sha256:0", "")
	f.Add("capture", "OnReady", "\x00", "\xff", "a.b")
	f.Fuzz(func(t *testing.T, key1, value1, key2, value2, container string) {
		got, err := ParseSettings(map[string]string{Prefix + key1: value1, Prefix + key2: value2, criContainerName: container})
		if err != nil {
			if !errors.Is(err, checkpoint.ErrInvalid) || got != (Settings{}) {
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
