package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parsePlatform reads OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT.
func parsePlatform(s string) (ocispec.Platform, error) {
	words := strings.Split(s, "/")
	for _, w := range words {
		if w == "" {
			words = nil
		}
	}
	if len(words) != 2 && len(words) != 3 {
		return ocispec.Platform{}, fmt.Errorf("%q is not OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT", s)
	}
	p := ocispec.Platform{OS: words[0], Architecture: words[1]}
	if len(words) == 3 {
		p.Variant = words[2]
	}
	return p, nil
}

// standIn is what an image offers for a platform that it has no programs for:
// an image whose only file names the platform and the image, so that no other
// has the same content. It can be fetched and unpacked, not run.
func standIn(name string, p ocispec.Platform) (*image, error) {
	im := newImage()
	im.config.Platform = p
	t := tree{}
	t.file("etc/stand-in", 0o644, fmt.Appendf(nil, "%s for %s/%s/%s\n", name, p.OS, p.Architecture, p.Variant))
	if err := im.addTree(t); err != nil {
		return nil, err
	}
	return im, nil
}

// manifest is the image's manifest, with the other blobs that belong to it.
func (im *image) manifest() (top blob, others []blob, err error) {
	config, err := jsonBlob(ocispec.MediaTypeImageConfig, im.config)
	if err != nil {
		return blob{}, nil, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config.desc,
	}
	for _, l := range im.layers {
		m.Layers = append(m.Layers, l.desc)
	}
	if top, err = jsonBlob(ocispec.MediaTypeImageManifest, m); err != nil {
		return blob{}, nil, err
	}
	top.desc.Platform = &im.config.Platform
	return top, append([]blob{config}, im.layers...), nil
}

// index is what the image's name stands for, with all blobs that belong to it:
// its manifest, or, with stand-ins, an index over theirs too.
func (im *image) index(name string) (top blob, others []blob, err error) {
	if top, others, err = im.manifest(); err != nil || len(im.standIns) == 0 {
		return top, others, err
	}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{top.desc},
	}
	others = append(others, top)
	for _, p := range im.standIns {
		other, err := standIn(name, p)
		if err != nil {
			return blob{}, nil, err
		}
		m, rest, err := other.manifest()
		if err != nil {
			return blob{}, nil, err
		}
		index.Manifests = append(index.Manifests, m.desc)
		others = append(append(others, m), rest...)
	}
	top, err = jsonBlob(ocispec.MediaTypeImageIndex, index)
	return top, others, err
}

func jsonBlob(mediaType string, v any) (blob, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return blob{}, err
	}
	return newBlob(mediaType, strings.NewReader(string(data)), int64(len(data)))
}
