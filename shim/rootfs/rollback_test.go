package rootfs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// setBack makes a container with a captured layer that was written to since, and
// returns what the layer held then and what it holds now.
func setBack(t *testing.T) (l layers, diff string, then, now map[string]facts) {
	t.Helper()
	l = newLayers(t)
	r := l.rootfs()
	write(t, l.lower+"/from-image", "image")
	must(t, os.Chmod(l.upper, 0o755))
	write(t, l.upper+"/digits", "3.14")
	must(t, os.Mkdir(l.upper+"/dir", 0o700))
	write(t, l.upper+"/dir/deleted-later", "x")
	diff = filepath.Join(filepath.Dir(l.upper), "diff")
	must(t, os.Mkdir(diff, 0o700))
	must(t, r.Capture(t.Context(), diff))
	then = survey(t, l.upper)
	write(t, l.upper+"/digits", "3.14159265")
	write(t, l.upper+"/written-later", "y")
	must(t, os.RemoveAll(l.upper+"/dir"))
	must(t, unix.Mknod(l.upper+"/from-image", unix.S_IFCHR, 0)) // deleted later
	return l, diff, then, survey(t, l.upper)
}

// wantLayer compares the layer, and sees that nothing lies beside it.
func wantLayer(t *testing.T, l layers, what string, want map[string]facts) {
	t.Helper()
	wantSame(t, what, survey(t, l.upper), want)
	if _, err := os.Lstat(l.rootfs().aside()); !os.IsNotExist(err) {
		t.Errorf("%s: something lies beside the layer (%v)", what, err)
	}
	if marked, err := hasXattr(l.upper, formerXattr); marked || err != nil {
		t.Errorf("%s: the layer is marked (%v)", what, err)
	}
}

func TestSetBack(t *testing.T) {
	l, diff, then, _ := setBack(t)
	r := l.rootfs()
	must(t, r.SetBack(t.Context(), diff))
	must(t, r.Mount())
	if got, err := os.ReadFile(r.Path + "/digits"); err != nil || string(got) != "3.14" {
		t.Errorf("the container reads %q (%v)", got, err)
	}
	if got, err := os.ReadFile(r.Path + "/from-image"); err != nil || string(got) != "image" {
		t.Errorf("of the image the container reads %q (%v)", got, err)
	}
	must(t, r.Keep())
	must(t, r.Unmount())
	_ = unix.Removexattr(l.upper, "trusted.overlay.uuid") // the mount's, where the kernel gives it one
	wantLayer(t, l, "kept", then)
	must(t, r.Recover())
	wantLayer(t, l, "kept, and recovered for nothing", then)
}

func TestRevert(t *testing.T) {
	l, diff, _, now := setBack(t)
	r := l.rootfs()
	must(t, r.SetBack(t.Context(), diff))
	write(t, l.upper+"/by-the-failed-restore", "z")
	must(t, r.Revert())
	wantLayer(t, l, "reverted", now)
	must(t, r.SetBack(t.Context(), diff)) // a second attempt
	must(t, r.Revert())
	wantLayer(t, l, "reverted twice", now)
}

func TestSetBackFails(t *testing.T) {
	l, diff, _, now := setBack(t)
	must(t, os.RemoveAll(diff))
	if err := l.rootfs().SetBack(t.Context(), diff); err == nil {
		t.Fatal("set back to nothing")
	}
	wantLayer(t, l, "after a failure", now)
	if err := New(l.bundle, nil).SetBack(t.Context(), diff); err == nil {
		t.Error("a plain directory was set back")
	}
}

// TestRecover kills, so to speak, the shim after each step.
func TestRecover(t *testing.T) {
	steps := []struct {
		name string
		do   func(t *testing.T, l layers, r *Rootfs, diff string)
	}{
		{"making room", func(t *testing.T, _ layers, r *Rootfs, _ string) { must(t, os.Mkdir(r.aside(), 0o700)) }},
		{"half a copy", func(t *testing.T, _ layers, r *Rootfs, _ string) { write(t, r.aside()+"/digits", "3.") }},
		{"the mark", func(t *testing.T, l layers, _ *Rootfs, _ string) {
			must(t, unix.Setxattr(l.upper, formerXattr, []byte("1"), 0))
		}},
		{"the exchange", func(t *testing.T, _ layers, r *Rootfs, _ string) { must(t, r.exchange()) }},
	}
	for n := range steps {
		t.Run(steps[n].name, func(t *testing.T) {
			l, diff, _, now := setBack(t)
			r := l.rootfs()
			for _, s := range steps[:n+1] {
				s.do(t, l, r, diff)
			}
			must(t, l.rootfs().Recover())
			wantLayer(t, l, "recovered", now)
		})
	}
	t.Run("half of the end", func(t *testing.T) {
		l, diff, then, _ := setBack(t)
		r := l.rootfs()
		must(t, r.SetBack(t.Context(), diff))
		must(t, unix.Removexattr(r.aside(), formerXattr))
		must(t, os.Remove(r.aside()+"/digits"))
		must(t, l.rootfs().Recover())
		wantLayer(t, l, "recovered", then)
	})
}
