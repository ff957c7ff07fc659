package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
)

// maxManifest bounds what is read of a manifest, in bytes. The store has a bound of its own.
const maxManifest = 8 << 20

// Options say how a stream is registered.
type Options struct {
	// Name and Replace are as in store.CommitOptions.
	Name    string
	Replace bool
	// Digest is what the checkpoint must be, "sha256:" and 64 digits; empty for any.
	Digest string
	// Progress, if not nil, is called with the bytes of files read so far and those in all.
	Progress func(done, total int64)
}

// Read reads a checkpoint from r and registers it: whole, with the digest that the stream's
// manifest has, or not at all. Errors wrap checkpoint.ErrInvalid for a stream that is none or
// of a version that this one does not read, checkpoint.ErrCorrupt for one that does not hold what its manifest says,
// and checkpoint.ErrExists if the name is taken.
func Read(ctx context.Context, st *store.Store, r io.Reader, o Options) (checkpoint.Entry, error) {
	e, err := read(ctx, st, r, o)
	if err != nil {
		return checkpoint.Entry{}, fmt.Errorf("import checkpoint: %w", err)
	}
	return e, nil
}

func read(ctx context.Context, st *store.Store, r io.Reader, o Options) (checkpoint.Entry, error) {
	var none checkpoint.Entry
	if o.Name != "" {
		if err := st.CheckName(o.Name); err != nil && (!errors.Is(err, checkpoint.ErrExists) || !o.Replace) {
			return none, err
		}
	}
	stream := tar.NewReader(r)
	meta, digest, err := readManifest(stream)
	if err != nil {
		return none, err
	}
	if o.Digest != "" && digest != o.Digest {
		return none, fmt.Errorf("%w: the stream holds %s, and %s was asked for", checkpoint.ErrCorrupt, digest, o.Digest)
	}
	if err := checkSpace(st, &meta); err != nil {
		return none, adviseSpace(st, err)
	}
	draft, err := st.NewDraft()
	if err != nil {
		return none, err
	}
	u := newUnpacker(ctx, &meta, map[string]string{imagesName: draft.ImagesDir(), diffName: draft.DiffDir()}, o.Progress)
	if err := u.unpack(stream); err != nil {
		return none, errors.Join(adviseSpace(st, err), draft.Discard())
	}
	e, err := draft.Commit(ctx, meta, store.CommitOptions{Name: o.Name, Replace: o.Replace, Digest: digest})
	return e, errors.Join(err, draft.Discard())
}

// readManifest reads the first entry of a stream.
func readManifest(stream *tar.Reader) (meta checkpoint.Checkpoint, digest string, err error) {
	h, err := stream.Next()
	if err != nil {
		return meta, "", broken(err)
	}
	if h.Name != manifestName || h.Typeflag != tar.TypeReg {
		return meta, "", errStream("it begins with %.80q instead of %s; `snapctl export` makes such streams", h.Name, manifestName)
	}
	if h.Size > maxManifest {
		return meta, "", errStream("its manifest has %d bytes, the limit is %d", h.Size, maxManifest)
	}
	raw, err := io.ReadAll(stream)
	if err != nil {
		return meta, "", broken(err)
	}
	return store.ParseManifest(raw)
}

// broken tells a stream that ends early or is no archive from one that could not be read.
func broken(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the stream ends too early; export it again", checkpoint.ErrCorrupt)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong):
		return errStream("%w; it must be what `snapctl export` wrote, uncompressed", err)
	}
	return err
}

// checkSpace refuses what cannot fit before it is read.
func checkSpace(st *store.Store, meta *checkpoint.Checkpoint) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(st.Root(), &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: st.Root(), Err: err}
	}
	free := int64(fs.Bavail) * int64(fs.Bsize) //nolint:unconvert // its type depends on the architecture
	if need := meta.ImagesBytes(); need > free {
		return fmt.Errorf("its images have %d MiB, and %d MiB are free: %w", need>>20, free>>20, unix.ENOSPC)
	}
	return nil
}

// adviseSpace adds the remedy to the errors of a full disk.
func adviseSpace(st *store.Store, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w; make room on the file system of %s, for example with `snapctl prune`", err, st.Root())
	}
	return err
}
