package measure

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/containerd-snap/snap/test/harness"
)

// Recipe is an image that is made of another one.
type Recipe struct {
	// Name is the image's.
	Name string
	// From is one of the set-up's images, as harness.Image knows it.
	From string
	// Add is a directory that is laid over it.
	Add string
	// WorkDir is the command's working directory; empty for the root.
	WorkDir string
	// Command is what the image runs.
	Command []string
}

// MakeImage writes the image to the file archive, and returns its path.
func MakeImage(ctx context.Context, r Recipe, archive string) (string, error) {
	base, err := harness.Image(r.From)
	if err != nil {
		return "", err
	}
	tool, err := harness.Tool("images")
	if err != nil {
		return "", err
	}
	args := []string{"-o", archive, "-name", r.Name, "-from", base, "-add", r.Add}
	if r.WorkDir != "" {
		args = append(args, "-workdir", r.WorkDir)
	}
	if out, err := exec.CommandContext(ctx, tool, append(args, r.Command...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("make image %s: %w: %s", r.Name, err, strings.TrimSpace(string(out)))
	}
	return archive, nil
}
