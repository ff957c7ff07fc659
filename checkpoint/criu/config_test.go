package criu

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigEncode(t *testing.T) {
	for name, tc := range map[string]struct {
		c    Config
		want string
	}{
		"zero":    {Config{}, ""},
		"default": {DefaultConfig(), "tcp-close\nnetwork-lock skip\nghost-limit 268435456\nskip-in-flight\nfile-locks\nlink-remap\n"},
		"all": {Config{
			TCP: TCPEstablished, NetworkLock: LockNFTables, GhostLimit: 1, SkipInFlight: true, FileLocks: true, LinkRemap: true,
			External:  []ExternalFile{{MountID: 43, Inode: 0xdead}},
			InheritFD: []InheritFD{{FD: 200, Key: "cow-1.img"}, {FD: 201, Key: ExternalFile{1, 2}.Key()}}, Verbosity: 4,
		}, "tcp-established\nnetwork-lock nftables\nghost-limit 1\nskip-in-flight\nfile-locks\nlink-remap\n" +
			"external file[2b:dead]\ninherit-fd fd[200]:cow-1.img\ninherit-fd fd[201]:file[1:2]\nverbosity=4\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.c.Encode()
			if err != nil || string(got) != tc.want {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestConfigRefuses(t *testing.T) {
	fd := func(n int, key string) Config { return Config{InheritFD: []InheritFD{{FD: n, Key: key}}} }
	for name, tc := range map[string]struct {
		c    Config
		want string
	}{
		"tcp":            {Config{TCP: "tcp-close\nlink-remap"}, "TCP"},
		"lock":           {Config{NetworkLock: "no"}, "NetworkLock"},
		"ghost":          {Config{GhostLimit: -1}, "GhostLimit"},
		"verbosity":      {Config{Verbosity: 5}, "Verbosity"},
		"standard fd":    {fd(2, "a"), "InheritFD 2"},
		"empty key":      {fd(3, ""), "Key"},
		"newline":        {fd(3, "a\nshell-job"), "Key"},
		"blank":          {fd(3, "a b"), "Key"},
		"quote":          {fd(3, `"a"`), "Key"},
		"comment":        {fd(3, "#a"), "Key"},
		"not ASCII":      {fd(3, "ä"), "Key"},
		"long":           {fd(3, strings.Repeat("a", maxKey+1)), "Key"},
		"one fd twice":   {Config{InheritFD: []InheritFD{{3, "a"}, {3, "b"}}}, "twice"},
		"names them all": {Config{GhostLimit: -7, Verbosity: 9}, "(Verbosity) 9"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "criu.conf")
			err := tc.c.Write(path)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("wrote a file")
			}
		})
	}
}

func TestConfigWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "criu.conf")
	for _, c := range []Config{{LinkRemap: true}, {}} {
		if err := c.Write(path); err != nil {
			t.Fatal(err)
		}
		want, _ := c.Encode()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", fi, err)
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
		t.Errorf("left %v, %v", es, err)
	}
	if err := (Config{}).Write(filepath.Join(dir, "missing", "criu.conf")); err == nil {
		t.Error("wrote into a directory that is not there")
	}
}

// Whatever the values are, the file has one line for each option that was set,
// and each line begins with an option that this package knows.
func FuzzConfig(f *testing.F) {
	f.Add("tcp-close", "skip", "file[1:2]", int64(7), 200, 4)
	f.Add("", "", "a\naction-script /x", int64(0), 3, 0)
	f.Fuzz(func(t *testing.T, tcp, lock, key string, ghost int64, fd, verbosity int) {
		c := Config{
			TCP: TCP(tcp), NetworkLock: NetworkLock(lock), GhostLimit: ghost,
			InheritFD: []InheritFD{{FD: fd, Key: key}}, Verbosity: verbosity,
		}
		data, err := c.Encode()
		if err != nil {
			return
		}
		for line := range strings.Lines(string(data)) {
			words := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '=' || r == '\n' })
			switch words[0] {
			case "tcp-close", "tcp-established":
			case "network-lock", "ghost-limit", "verbosity":
				if len(words) != 2 {
					t.Errorf("%q", line)
				}
			case "inherit-fd":
				if !strings.HasPrefix(line, "inherit-fd fd[") || len(strings.Fields(line)) != 2 {
					t.Errorf("%q", line)
				}
			default:
				t.Errorf("unknown option in %q", line)
			}
		}
	})
}
