package start

import (
	"unicode/utf8"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/oci/spec"
)

// heldFiles lists what the program of the images in dir has in use on mounts from outside, which a
// clone must have on its own. Of the files that tell a container of itself a clone's
// are not the captured one's: there CRIU is not to look at their length. Not where they
// are mapped: a process that reads behind the end of a mapped file is killed.
func (i *Init) heldFiles(dir string) ([]checkpoint.HeldFile, error) {
	identity := func(f criu.OpenFile) bool { return f.External != "" && f.External == i.settings.Identity }
	own := func(f criu.OpenFile) bool {
		return !f.Mapped && (identity(f) || f.External == f.Path && spec.IsOwnFile(f.Path))
	}
	if err := criu.ForgetSizes(dir, own); err != nil {
		return nil, err
	}
	files, err := criu.OpenFiles(dir)
	if err != nil {
		return nil, err
	}
	var held []checkpoint.HeldFile
	seen := map[checkpoint.HeldFile]bool{}
	for _, f := range files {
		h := checkpoint.HeldFile{Path: f.Path, Mount: f.External, Size: f.Size, Mode: f.Mode}
		// What JSON cannot write is left to CRIU.
		if f.External == "" || f.Removed || identity(f) || seen[h] || !utf8.ValidString(f.Path) {
			continue
		}
		seen[h] = true
		held = append(held, h)
	}
	return held, nil
}
