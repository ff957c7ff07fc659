package store

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
)

// VerifyMetadata checks, in a few milliseconds, all of an entry that a restore can check
// without reading memory: the digests of its manifest and of all images but page files, the
// sizes of these, that nothing is missing and nothing was added, and that the copy of
// the writable layer is there. Errors wrap checkpoint.ErrCorrupt and say which file is wrong
// and how; checkpoint.ErrInvalid if the manifest is intact but not of this version's
// making; or checkpoint.ErrNotFound if the entry was removed.
func (s *Store) VerifyMetadata(e checkpoint.Entry) error {
	hex, err := parseDigest(e.Digest)
	if err != nil {
		return fmt.Errorf("verify checkpoint: %w", err)
	}
	if err := s.verifyMetadata(hex); err != nil {
		return fmt.Errorf("verify checkpoint %s: %w", e.Digest, err)
	}
	return nil
}

func (s *Store) verifyMetadata(hex string) error {
	dir, c, err := s.openEntry(hex)
	if err != nil {
		return err
	}
	defer dir.Close()
	return verifyEntry(context.Background(), dir, &c, false, nil)
}

// Verify checks an entry as VerifyMetadata does, and reads its page files and the copy of
// the writable layer as well. It calls progress, if that is not nil, with the bytes
// that were read so far and those to read in all; never from two goroutines at once.
func (s *Store) Verify(ctx context.Context, e checkpoint.Entry, progress func(done, total int64)) error {
	hex, err := parseDigest(e.Digest)
	if err != nil {
		return fmt.Errorf("verify checkpoint: %w", err)
	}
	if err := s.verify(ctx, hex, progress); err != nil {
		return fmt.Errorf("verify checkpoint %s: %w", e.Digest, err)
	}
	return nil
}

func (s *Store) verify(ctx context.Context, hex string, progress func(done, total int64)) error {
	dir, c, err := s.openEntry(hex)
	if err != nil {
		return err
	}
	defer dir.Close()
	var onRead func(int64)
	if progress != nil {
		total, done := c.Bytes(), int64(0)
		onRead = func(n int64) {
			done += n
			progress(done, total)
		}
	}
	if err := verifyEntry(ctx, dir, &c, true, onRead); err != nil {
		return err
	}
	diff, err := digestDiff(ctx, dir, diffName, onRead)
	if err != nil {
		return damage(diffName, err)
	}
	switch {
	case diff == c.Diff:
		return nil
	case diff.Files != c.Diff.Files || diff.Bytes != c.Diff.Bytes:
		return corrupt(diffName, "%d files with %d bytes instead of %d with %d", diff.Files, diff.Bytes, c.Diff.Files, c.Diff.Bytes)
	default:
		return corrupt(diffName, "the digest of the tree differs")
	}
}

// verifyEntry compares the images with the manifest, pages by digest only if asked.
func verifyEntry(ctx context.Context, dir *os.File, c *checkpoint.Checkpoint, pages bool, onRead func(int64)) error {
	if err := checkParts(dir, manifestName, imagesName, diffName); err != nil {
		return fmt.Errorf("%w: %w", checkpoint.ErrCorrupt, err)
	}
	listed := make(map[string]*checkpoint.File, len(c.Files))
	for i := range c.Files {
		listed[c.Files[i].Path] = &c.Files[i]
	}
	found := 0
	err := walkDir(ctx, dir, imagesName, func(n node) error {
		if n.isDir() {
			return nil
		}
		file := listed[n.path]
		if file == nil {
			return corrupt(imagesName+"/"+n.path, "it is not listed in the manifest")
		}
		found++
		return verifyFile(ctx, n, file, pages, onRead)
	})
	if err != nil {
		return damage(imagesName, err)
	}
	if found < len(c.Files) {
		return missingFile(dir, c)
	}
	return verifyDiffPresence(dir, c)
}

func verifyFile(ctx context.Context, n node, file *checkpoint.File, pages bool, onRead func(int64)) error {
	name := imagesName + "/" + n.path
	switch {
	case !n.isRegular():
		return corrupt(name, "it is %s, not a regular file", n.describe())
	case n.st.Size < file.Size:
		return corrupt(name, "truncated: %d of %d bytes", n.st.Size, file.Size)
	case n.st.Size > file.Size:
		return corrupt(name, "%d bytes instead of %d", n.st.Size, file.Size)
	case file.Pages && !pages:
		return nil
	}
	f, err := n.open()
	if err != nil {
		return damage(name, err)
	}
	defer f.Close()
	var sum string
	if file.Sparse {
		sum, _, err = hashSparse(ctx, f, onRead)
	} else {
		sum, _, err = hashFile(ctx, f, onRead)
	}
	if err != nil {
		return damage(name, err)
	}
	if sum != file.SHA256 {
		return corrupt(name, "its digest differs")
	}
	return nil
}

// missingFile names the first file that is listed but not there.
func missingFile(dir *os.File, c *checkpoint.Checkpoint) error {
	images, err := openDirAt(dir, imagesName)
	if err != nil {
		return damage(imagesName, err)
	}
	defer images.Close()
	for _, file := range c.Files {
		f, _, err := openBeneath(images, file.Path)
		if err != nil {
			return damage(imagesName+"/"+file.Path, err)
		}
		f.Close()
	}
	return nil // all there: they came back while we looked
}

func verifyDiffPresence(dir *os.File, c *checkpoint.Checkpoint) error {
	diff, err := openDirAt(dir, diffName)
	if err != nil {
		return damage(diffName, err)
	}
	defer diff.Close()
	if c.Diff.Files == 0 {
		return nil
	}
	if _, err := diff.Readdirnames(1); err != nil {
		return corrupt(diffName, "it is empty, the manifest lists %d files", c.Diff.Files)
	}
	return nil
}

func corrupt(name, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s; remove the checkpoint and take it again", checkpoint.ErrCorrupt, name, fmt.Sprintf(format, args...))
}

// damage tells an error that comes from the checkpoint's files from one that comes
// from this process or this moment, as a lack of descriptors, which is no damage.
func damage(name string, err error) error {
	switch {
	case errors.Is(err, checkpoint.ErrCorrupt):
		return err
	case errors.Is(err, os.ErrNotExist):
		return corrupt(name, "missing")
	case errors.Is(err, errNotRegular), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EIO),
		errors.Is(err, checkpoint.ErrInvalid):
		return fmt.Errorf("%w: %s: %w", checkpoint.ErrCorrupt, name, err)
	default:
		return fmt.Errorf("read %s: %w", name, err)
	}
}
