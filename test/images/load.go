package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// load begins with the image that write put into the file name. Its layers
// are copied as they are; nothing is unpacked or digested again.
func (im *image) load(name string) error {
	f, _, err := im.open(name)
	if err != nil {
		return fmt.Errorf("open image: %w", err)
	}
	if err := im.decode(f); err != nil {
		return fmt.Errorf("read image %s: %w", name, err)
	}
	return nil
}

// file is what decode reads from.
type file interface {
	io.ReadSeeker
	io.ReaderAt
}

func (im *image) decode(f file) error {
	files, err := contents(f)
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := readJSON(files[ocispec.ImageIndexFile], &index); err != nil {
		return fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	if len(index.Manifests) != 1 {
		return fmt.Errorf("it holds %d images, one is wanted", len(index.Manifests))
	}
	blobOf := func(d ocispec.Descriptor) (*io.SectionReader, error) {
		if err := d.Digest.Validate(); err != nil {
			return nil, err
		}
		r := files[blobPath(d.Digest)]
		if r == nil || r.Size() != d.Size {
			return nil, fmt.Errorf("blob %s of %d bytes is missing", d.Digest, d.Size)
		}
		return r, nil
	}

	var manifest ocispec.Manifest
	r, err := blobOf(index.Manifests[0])
	if err != nil {
		return err
	}
	if err := readJSON(r, &manifest); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if r, err = blobOf(manifest.Config); err != nil {
		return err
	}
	if err := readJSON(r, &im.config); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	for _, d := range manifest.Layers {
		if r, err = blobOf(d); err != nil {
			return err
		}
		im.layers = append(im.layers, blob{desc: d, content: r})
	}
	return nil
}

// contents finds where in a tar archive its files lie.
func contents(f file) (map[string]*io.SectionReader, error) {
	files := map[string]*io.SectionReader{}
	t := tar.NewReader(f)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		// The reader takes headers block by block and nothing in advance, so that
		// the file now stands at the beginning of the entry's content.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		files[h.Name] = io.NewSectionReader(f, at, h.Size)
	}
}

// maxJSON bounds the documents that are read into memory.
const maxJSON = 4 << 20

func readJSON(r *io.SectionReader, v any) error {
	switch {
	case r == nil:
		return errors.New("is missing")
	case r.Size() > maxJSON:
		return fmt.Errorf("has %d bytes, at most %d are read", r.Size(), maxJSON)
	}
	return json.NewDecoder(r).Decode(v)
}
