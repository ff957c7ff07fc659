package pressure

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// serveImage offers the image of an OCI archive as a registry does, on loopback,
// and returns its name there: containerd-stress pulls what it runs.
func serveImage(t *testing.T, archive string) string {
	t.Helper()
	blobs, manifest, err := readArchive(archive)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// /v2/NAME/manifests/TAG-OR-DIGEST, /v2/NAME/blobs/DIGEST
		ref := path.Base(r.URL.Path)
		if strings.Contains(r.URL.Path, "/manifests/") {
			if !strings.Contains(ref, ":") {
				ref = manifest.Digest.String()
			}
			w.Header().Set("Content-Type", manifest.MediaType)
		}
		data, ok := blobs[ref]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Docker-Content-Digest", ref)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(data) // a client that has gone asks again
		}
	}))
	t.Cleanup(server.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	// For this name containerd takes plain HTTP.
	return "localhost:" + port + "/snap/pressure:1"
}

// readArchive returns an archive's blobs, by digest, and its only manifest.
func readArchive(file string) (map[string][]byte, v1.Descriptor, error) {
	var none v1.Descriptor
	f, err := os.Open(file)
	if err != nil {
		return nil, none, err
	}
	defer f.Close()
	blobs := map[string][]byte{}
	var index v1.Index
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, none, err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return nil, none, err
		}
		if name, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok {
			blobs["sha256:"+name] = data
		} else if h.Name == "index.json" {
			if err := json.Unmarshal(data, &index); err != nil {
				return nil, none, err
			}
		}
	}
	if len(index.Manifests) != 1 {
		return nil, none, fmt.Errorf("read %s: it holds %d manifests", file, len(index.Manifests))
	}
	return blobs, index.Manifests[0], nil
}
