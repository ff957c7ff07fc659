package main

import (
	"archive/tar"
	"bytes"
	_ "crypto/sha256" // the algorithm of go-digest's digests
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// blob is content, wherever it lies.
type blob struct {
	desc    ocispec.Descriptor
	content *io.SectionReader
}

// image is an image being built. Its layers are plain tar: they are imported
// on the machine that wrote them, where compressing costs more than it saves.
type image struct {
	config ocispec.Image
	layers []blob
	files  []*os.File // opened by load and addTar; the layers read from them
	// standIns are the platforms that it is offered for without programs.
	standIns []ocispec.Platform
}

func newImage() *image {
	im := &image{}
	im.config.Created = &epoch
	im.config.OS = "linux"
	im.config.Architecture = runtime.GOARCH
	im.config.Config.Env = []string{defaultPath}
	im.config.Config.Cmd = []string{"/bin/sh"}
	im.config.RootFS.Type = "layers"
	return im
}

func (im *image) close() {
	for _, f := range im.files {
		f.Close()
	}
}

func (im *image) open(name string) (*os.File, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	im.files = append(im.files, f)
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// addTree appends a layer with the files of t.
func (im *image) addTree(t tree) error {
	data, err := t.tar()
	if err != nil {
		return err
	}
	return im.addLayer(bytes.NewReader(data), int64(len(data)))
}

// addTar appends a layer that is the plain tar file name, byte for byte.
func (im *image) addTar(name string) error {
	f, size, err := im.open(name)
	if err != nil {
		return fmt.Errorf("open layer: %w", err)
	}
	return im.addLayer(f, size)
}

func (im *image) addLayer(r io.ReaderAt, size int64) error {
	b, err := newBlob(ocispec.MediaTypeImageLayer, r, size)
	if err != nil {
		return fmt.Errorf("digest layer: %w", err)
	}
	im.layers = append(im.layers, b)
	im.config.RootFS.DiffIDs = append(im.config.RootFS.DiffIDs, b.desc.Digest)
	return nil
}

// configure applies the command line to the image's configuration, over what
// its base says.
func (im *image) configure(o options) {
	c := &im.config.Config
	for _, e := range o.env {
		name, _, _ := strings.Cut(e, "=")
		c.Env = slices.DeleteFunc(c.Env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		c.Env = append(c.Env, e)
	}
	if o.workdir != "" {
		c.WorkingDir = o.workdir
	}
	if o.user != "" {
		c.User = o.user
	}
	for _, v := range o.volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[v] = struct{}{}
	}
	im.standIns = o.standIns
	if o.platform.OS != "" {
		im.config.Platform = o.platform
	}
	if len(o.command) > 0 {
		c.Entrypoint, c.Cmd = nil, o.command
	}
}

// write replaces the file out by the image, at once and whole.
func (im *image) write(out, name string) (err error) {
	f, err := os.CreateTemp(path.Dir(out), ".image-*")
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write image %s: %w", out, err)
		}
	}()
	if err := im.encode(f, name); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}

// encode writes the OCI layout: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
func (im *image) encode(f *os.File, name string) error {
	top, others, err := im.index(name)
	if err != nil {
		return err
	}
	top.desc.Annotations = map[string]string{
		"io.containerd.image.name": name,
		ocispec.AnnotationRefName:  name[strings.LastIndex(name, ":")+1:],
	}
	index, err := jsonBlob(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{top.desc},
	})
	if err != nil {
		return err
	}
	layout, err := jsonBlob("", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}

	w := tar.NewWriter(f)
	written := map[string]bool{}
	put := func(name string, b blob) error {
		if written[name] { // two layers can be equal
			return nil
		}
		written[name] = true
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: b.desc.Size, ModTime: epoch}); err != nil {
			return err
		}
		_, err := io.Copy(w, b.content)
		return err
	}
	if err := put(ocispec.ImageLayoutFile, layout); err != nil {
		return err
	}
	if err := put(ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	for _, b := range append([]blob{top}, others...) {
		if err := put(blobPath(b.desc.Digest), b); err != nil {
			return err
		}
	}
	return w.Close()
}

func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func newBlob(mediaType string, r io.ReaderAt, size int64) (blob, error) {
	d, err := digest.FromReader(io.NewSectionReader(r, 0, size))
	if err != nil {
		return blob{}, err
	}
	return blob{
		desc:    ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size},
		content: io.NewSectionReader(r, 0, size),
	}, nil
}
