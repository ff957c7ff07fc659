package main

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd-snap/snap/test/harness"
)

// app is what the demo's image adds to the Python image: the program.
//
//go:embed app/srv/search/*.py
var app embed.FS

// image is the name of the demo's image.
const image = "localhost/snap/search:1"

// prepareImage makes the image and loads it into the node.
func prepareImage(ctx context.Context, d *demo) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	archive, err := makeImage(ctx, d.node.Dir)
	if err != nil {
		return "", err
	}
	defer os.Remove(archive)
	if err := d.node.Import(ctx, archive); err != nil {
		return "", err
	}
	return image + ", a Debian with Python, NumPy, pandas, NetworkX and SymPy", nil
}

// makeImage writes the image to a file in dir, and returns its path.
func makeImage(ctx context.Context, dir string) (string, error) {
	base, err := harness.Image("python")
	if err != nil {
		return "", err
	}
	tool, err := harness.Tool("images")
	if err != nil {
		return "", err
	}
	root, err := fs.Sub(app, "app")
	if err != nil {
		return "", err
	}
	tree, archive := filepath.Join(dir, "app"), filepath.Join(dir, "search.tar")
	if err := os.CopyFS(tree, root); err != nil {
		return "", fmt.Errorf("unpack the program: %w", err)
	}
	cmd := exec.CommandContext(ctx, tool, "-o", archive, "-name", image, "-from", base, "-add", tree,
		"-workdir", "/srv/search", "/usr/bin/python3", "server.py")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make image %s: %w: %s", image, err, strings.TrimSpace(string(out)))
	}
	return archive, nil
}
