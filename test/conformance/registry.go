package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registry serves images from archives, read-only, as the registries whose
// names they have: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pull
type registry struct {
	// images are what full names, with their tags, stand for.
	images map[string]ocispec.Descriptor
	blobs  map[digest.Digest][]byte

	mu sync.Mutex
	// missed are what was asked for and is not there.
	missed map[string]bool
}

// loadRegistry reads all archives of dir.
func loadRegistry(dir string) (*registry, error) {
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err == nil && len(archives) == 0 {
		err = errors.New("there are none, \"make conformance\" makes them")
	}
	if err != nil {
		return nil, fmt.Errorf("find images in %s: %w", dir, err)
	}
	r := &registry{images: map[string]ocispec.Descriptor{}, blobs: map[digest.Digest][]byte{}, missed: map[string]bool{}}
	for _, a := range archives {
		if err := r.load(a); err != nil {
			return nil, fmt.Errorf("read image %s: %w", a, err)
		}
	}
	return r, nil
}

func (r *registry) load(archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	var index ocispec.Index
	for t := tar.NewReader(f); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		if h.Name == ocispec.ImageIndexFile {
			if err := json.Unmarshal(data, &index); err != nil {
				return err
			}
			continue
		}
		r.blobs[digest.FromBytes(data)] = data
	}
	for _, d := range index.Manifests {
		name := d.Annotations["io.containerd.image.name"]
		if name == "" || r.blobs[d.Digest] == nil {
			return fmt.Errorf("manifest %s has no name or no content", d.Digest)
		}
		r.images[name] = d
	}
	return nil
}

// hosts are the registries that the images' names say.
func (r *registry) hosts() []string {
	seen := map[string]bool{}
	var hosts []string
	for name := range r.images {
		host, _, _ := strings.Cut(name, "/")
		if !seen[host] {
			seen[host] = true
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// ServeHTTP answers pulls.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		http.Error(w, "this registry is read-only", http.StatusMethodNotAllowed)
		return
	}
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok || rest == "" {
		return // the question whether this is a registry
	}
	rest, ref := path.Split(rest)
	rest, kind := path.Split(strings.TrimSuffix(rest, "/"))
	repository := req.Host + "/" + strings.TrimSuffix(rest, "/")

	dgst, mediaType := digest.Digest(ref), "application/octet-stream"
	if kind == "manifests" {
		if d, ok := r.images[repository+":"+ref]; ok {
			dgst = d.Digest
		}
		mediaType = r.mediaType(dgst)
	}
	data, ok := r.blobs[dgst]
	if !ok {
		r.mu.Lock()
		r.missed[repository+" "+ref] = true
		r.mu.Unlock()
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", dgst.String())
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if req.Method == http.MethodGet {
		// A client that goes away in the middle is not our concern.
		_, _ = w.Write(data)
	}
}

// mediaType is what a manifest or an index says of itself.
func (r *registry) mediaType(d digest.Digest) string {
	var document struct{ MediaType string }
	if err := json.Unmarshal(r.blobs[d], &document); err != nil {
		return ""
	}
	return document.MediaType
}

// notFound lists what clients missed.
func (r *registry) notFound() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for n := range r.missed {
		names = append(names, n)
	}
	return names
}
