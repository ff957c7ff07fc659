package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// seal completes meta from the draft's files, makes them private to root, writes the
// manifest, and syncs everything. It returns the digest in hexadecimal.
func (d *Draft) seal(ctx context.Context, meta *checkpoint.Checkpoint) (string, error) {
	if err := remove(filepath.Join(d.dir, manifestName)); err != nil { // of an earlier attempt
		return "", err
	}
	if err := checkParts(d.lock, imagesName, diffName); err != nil {
		return "", fmt.Errorf("%w draft: %w", checkpoint.ErrInvalid, err)
	}
	marked := make(map[string]checkpoint.File)
	for _, f := range meta.Files {
		marked[f.Path] = f
	}
	var files []*checkpoint.File
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		files, err = hashImages(gctx, d.lock, marked)
		return err
	})
	g.Go(func() (err error) {
		meta.Diff, err = digestDiff(gctx, d.lock, diffName, nil)
		return err
	})
	if err := g.Wait(); err != nil {
		return "", err
	}
	meta.Files = make([]checkpoint.File, len(files))
	for i, f := range files {
		meta.Files[i] = *f
	}
	meta.SchemaVersion = checkpoint.SchemaVersion
	meta.CreatedAt = meta.CreatedAt.UTC() // one moment, one manifest, whatever the time zone
	raw, err := encodeManifest(meta)
	if err != nil {
		return "", err
	}
	return digestOf(raw), d.sync(ctx, meta.Files, raw)
}

// checkParts refuses anything in dir but the given names.
func checkParts(dir *os.File, want ...string) error {
	self, err := openDirAt(dir, ".") // dir itself is read but once
	if err != nil {
		return err
	}
	defer self.Close()
	names, err := self.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.Contains(want, name) {
			return fmt.Errorf("unexpected %q beside %s", name, want[0])
		}
	}
	for _, name := range want {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%s is missing", name)
		}
	}
	return nil
}

// hashImages makes all below dir/images private and returns its files, sorted by path.
func hashImages(ctx context.Context, dir *os.File, marked map[string]checkpoint.File) ([]*checkpoint.File, error) {
	var files []*checkpoint.File
	// Files are opened by the walk and hashed aside; the limit bounds the
	// descriptors as well.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), 4))
	err := walkDir(ctx, dir, imagesName, func(n node) error {
		if !n.isDir() && !n.isRegular() {
			return fmt.Errorf("%w image: %s is %s; CRIU writes regular files only", checkpoint.ErrInvalid, n.path, n.describe())
		}
		f, err := n.open()
		if err != nil {
			return err
		}
		if err := makePrivate(f, n); err != nil || n.isDir() {
			f.Close()
			return err
		}
		mark := marked[n.path]
		file := &checkpoint.File{Path: n.path, Pages: mark.Pages || isPages(n.path), Sparse: isSparse(n.path)}
		files = append(files, file)
		if mark.Shared && mark.Size == n.st.Size {
			*file = mark
			return f.Close()
		}
		g.Go(func() (err error) {
			defer f.Close()
			if file.Sparse {
				file.Size = n.st.Size
				file.SHA256, file.Stored, err = hashSparse(ctx, f, nil)
			} else {
				file.SHA256, file.Size, err = hashFile(ctx, f, nil)
			}
			if err != nil {
				return fmt.Errorf("read image %s: %w", file.Path, err)
			}
			return nil
		})
		return nil
	})
	if err != nil {
		cancel(err) // no need to hash on
	}
	// An error of the hashing, as the cause of its context, ends the walk as well.
	if hashErr := g.Wait(); err != nil || hashErr != nil {
		return nil, cmp.Or(err, hashErr)
	}
	slices.SortFunc(files, func(a, b *checkpoint.File) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

// isPages says whether CRIU keeps pages of memory in the image of that path.
func isPages(p string) bool {
	ok, err := path.Match("pages-*.img", path.Base(p))
	return ok && err == nil
}

// makePrivate gives an image, or a directory of images, to root alone. Images become
// read-only: a page file that is written to in place would corrupt what runs from it.
func makePrivate(f *os.File, n node) error {
	if n.st.Uid != 0 || n.st.Gid != 0 {
		if err := f.Chown(0, 0); err != nil {
			return err
		}
	}
	mode := os.FileMode(0o400)
	if n.isDir() {
		mode = 0o700
	}
	return f.Chmod(mode)
}

// sync writes the manifest and makes the draft durable.
func (d *Draft) sync(ctx context.Context, files []checkpoint.File, manifest []byte) error {
	for _, name := range []string{imagesName, diffName} {
		if err := syncTree(ctx, d.lock, name); err != nil {
			return fmt.Errorf("sync %s: %w", name, err)
		}
	}
	images, err := openDirAt(d.lock, imagesName)
	if err != nil {
		return err
	}
	defer images.Close()
	for _, file := range files {
		// The kernel's tree of digests would cover the hole of a sparse file as well.
		if !file.Pages || file.Sparse {
			continue
		}
		f, _, err := openBeneath(images, file.Path)
		if err != nil {
			return err
		}
		err = errors.Join(enableVerity(f), f.Close())
		if err != nil {
			return err
		}
	}
	if err := writeManifest(filepath.Join(d.dir, manifestName), manifest); err != nil {
		return fmt.Errorf("write %s: %w", manifestName, err)
	}
	return d.lock.Sync()
}

func writeManifest(path string, manifest []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o400)
	if err != nil {
		return err
	}
	_, err = f.Write(manifest)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
