// Package search is a program to measure starts with: a search server in Python that takes
// seconds to boot and holds 210 MB. The demo and the benchmark run it.
package search

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd-snap/snap/test/measure"
)

// app is what the image adds to the Python image: the program.
//
//go:embed srv/search/*.py
var app embed.FS

// Image is the name of the program's image.
const Image = "localhost/snap/search:1"

// MakeImage writes the image to a file in dir, and returns its path.
func MakeImage(ctx context.Context, dir string) (string, error) {
	tree := filepath.Join(dir, "search")
	if err := os.CopyFS(tree, app); err != nil {
		return "", fmt.Errorf("unpack the program: %w", err)
	}
	return measure.MakeImage(ctx, measure.Recipe{
		Name: Image, From: "python", Add: tree, WorkDir: "/srv/search", Command: []string{"/usr/bin/python3", "server.py"},
	}, filepath.Join(dir, "search.tar"))
}
