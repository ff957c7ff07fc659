package mapped

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrRewrite is returned for images that are of no use any more.
var ErrRewrite = errors.New("the images are incomplete")

// Rewrite replaces the images in dir by what fill makes of them in dst, an empty directory.
// If fill fails, they are as before; after ErrRewrite they are of no use.
func Rewrite(dir string, fill func(dst string) error) (err error) {
	dst := filepath.Join(dir, ".rewrite")
	if err := os.Mkdir(dst, 0o700); err != nil {
		return fmt.Errorf("rewrite images: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dst)) }()
	if err := fill(dst); err != nil {
		return err
	}
	if err := replace(dir, dst); err != nil {
		return fmt.Errorf("rewrite images: %w: %w", ErrRewrite, err)
	}
	return nil
}

// replace moves the files of dst into dir, and removes what dst does not have.
func replace(dir, dst string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(dst, e.Name())); errors.Is(err, os.ErrNotExist) && !e.IsDir() {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if entries, err = os.ReadDir(dst); err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(dst, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
