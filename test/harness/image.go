package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Image is the path of an image archive that the set-up made, by its name
// without the extension: busybox, python.
func Image(name string) (string, error) {
	t, err := findTools()
	if err != nil {
		return "", err
	}
	path := filepath.Join(t.tools, "images", name+".tar")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find image %s, which \"make setup\" makes: %w", name, err)
	}
	return path, nil
}

// ProgramImage builds Go programs and makes an image of them, in /bin over busybox, whose
// command is the first of them. It returns the archive's path, a file in dir.
func ProgramImage(ctx context.Context, dir, name string, packages ...string) (string, error) {
	busybox, err := Image("busybox")
	if err != nil {
		return "", err
	}
	maker, err := Tool("images")
	if err != nil {
		return "", err
	}
	command := filepath.Base(packages[0])
	layer, archive := filepath.Join(dir, command), filepath.Join(dir, command+".tar")
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(layer, "bin") + "/"}, packages...)
	build := exec.CommandContext(ctx, "go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	image := exec.CommandContext(ctx, maker, "-o", archive, "-name", name, "-from", busybox, "-add", layer, "/bin/"+command)
	for _, cmd := range []*exec.Cmd{build, image} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("make the image %s: %w: %s", name, err, out)
		}
	}
	return archive, nil
}
