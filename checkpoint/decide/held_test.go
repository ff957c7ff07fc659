package decide

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/checkpoint"
)

func TestMissing(t *testing.T) {
	volume := t.TempDir()
	for _, d := range []string{"dir", "file"} {
		if err := os.Mkdir(filepath.Join(volume, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(volume, "dir", "five"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(volume, "out")); err != nil {
		t.Fatal(err)
	}
	oci := container()
	oci.Mounts = []specs.Mount{
		{Destination: "/data", Type: "bind", Source: "/nowhere"},
		{Destination: "/data", Type: "bind", Source: volume},
		{Destination: "/one", Options: []string{"rbind"}, Source: filepath.Join(volume, "dir", "five")},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/relative", Type: "bind", Source: "data"},
	}
	file := func(path, mount string, size int64) checkpoint.HeldFile {
		return checkpoint.HeldFile{Path: path, Mount: mount, Size: size, Mode: 0o100600}
	}
	for name, c := range map[string]struct {
		held checkpoint.HeldFile
		want string
	}{
		"there":                  {file("/data/dir/five", "/data", 5), ""},
		"of any size":            {file("/data/dir/five", "/data", -1), ""},
		"a mount of one file":    {file("/one", "/one", 5), ""},
		"which is longer":        {file("/one", "/one", 3), "it has 5 bytes now, not 3"},
		"longer":                 {file("/data/dir/five", "/data", 4), "/data/dir/five of the mount /data (here " + volume + ") in use, and it has 5 bytes now, not 4"},
		"gone":                   {file("/data/dir/six", "/data", 5), "not there"},
		"a file in its place":    {checkpoint.HeldFile{Path: "/data/dir/five", Mount: "/data", Size: -1, Mode: 0o40700}, "of another kind"},
		"a directory":            {checkpoint.HeldFile{Path: "/data/dir", Mount: "/data", Size: -1, Mode: 0o40700}, ""},
		"open to all":            {checkpoint.HeldFile{Path: "/data/dir", Mount: "/data", Size: -1, Mode: 0o40777}, "its mode is 0700 now, not 0777"},
		"the mount itself":       {checkpoint.HeldFile{Path: "/data", Mount: "/data", Size: -1, Mode: 0o40755}, ""},
		"a directory instead":    {file("/data/file", "/data", -1), "of another kind"},
		"a way out":              {file("/data/out", "/data", -1), "cannot be looked at"},
		"no mount there":         {file("/gone/x", "/gone", 5), ""},
		"no bind mount":          {file("/tmp/x", "/tmp", 5), ""},
		"a source of the bundle": {file("/relative/x", "/relative", 5), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := Missing(oci, []checkpoint.HeldFile{c.held})
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	both := []checkpoint.HeldFile{file("/data/dir/five", "/data", 5), file("/data/gone", "/data", 5)}
	if got := Missing(oci, both); !strings.Contains(got, "/data/gone") {
		t.Errorf("the second of two: %q", got)
	}
}
