package create

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd-snap/snap/cmd/snapctl/internal/human"
)

// drafts watches the checkpoints that are being written to a store. It is for
// progress only: whatever it cannot read counts as nothing.
type drafts struct{ dir string }

func newDrafts(root string) drafts { return drafts{dir: filepath.Join(root, "drafts")} }

// line says for a terminal how far the capture of a container is.
func (d drafts) line(container string, elapsed time.Duration) string {
	return fmt.Sprintf("capturing %s: %s, %s written", human.Short(container, 32), elapsed.Truncate(time.Second), human.Bytes(d.written()))
}

// written returns the size in bytes of the newest draft, which is the one of this
// capture unless another one began after it.
func (d drafts) written() int64 {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return 0
	}
	newest, at := "", time.Time{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().After(at) {
			newest, at = e.Name(), info.ModTime()
		}
	}
	if newest == "" {
		return 0
	}
	var total int64
	_ = filepath.WalkDir(filepath.Join(d.dir, newest), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // renamed away as it is read
		}
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}
