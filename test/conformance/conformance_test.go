package main

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParse(t *testing.T) {
	output := "\x16=== RUN   TestA\nsomething\n--- FAIL: TestForged (0.00s)\n" +
		"\x16=== RUN   TestB/x\nno newline at the end\x16    --- PASS: TestB/x (0.01s)\n" +
		"\x16--- PASS: TestB (0.02s)\n\x16--- SKIP: TestC (0.00s)\n\x16--- FAIL: TestA (1.00s)\npanic: test timed out"
	got := result{}
	if err := parse(strings.NewReader(output+"\n\x16--- PASS: TestA (1.00s)\n"), got.add); err != nil {
		t.Fatal(err)
	}
	want := result{"TestA": fail, "TestB": pass, "TestB/x": pass, "TestC": skip}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parsed %v, want %v", got, want)
	}
}

func TestReport(t *testing.T) {
	names := []string{"TestHung", "TestB", "TestA", "TestC"}
	stock := result{"TestA": pass, "TestB": pass, "TestB/x": pass, "TestB/y": fail, "TestC": skip, "TestHung": pass}
	ours := result{"TestA": pass, "TestB": fail, "TestB/x": fail, "TestB/y": fail, "TestC": skip}

	worse := ours.worseThan(stock)
	if want := []string{"TestB", "TestB/x", "TestHung"}; !slices.Equal(worse, want) {
		t.Errorf("worse: %q, want %q", worse, want)
	}
	if want := []string{"TestB", "TestHung"}; !slices.Equal(tops(worse), want) {
		t.Errorf("to be run again: %q, want %q", tops(worse), want)
	}

	name := filepath.Join(t.TempDir(), "out", "conformance.json")
	rep := report{columns: map[string]summary{"runc": stock.summarise(names), "snap": ours.summarise(names)}}
	if err := rep.write(name); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		t.Fatal(err)
	}
	want := `{"retried":[],"runc":{"passed":3,"failed":[],"skipped":["TestC"]},"snap":{"passed":1,"failed":["TestB","TestHung"],"skipped":["TestC"]}}`
	if compact.String() != want {
		t.Errorf("report\n%s, want\n%s", &compact, want)
	}

	shown := table(columns[:2], map[string]result{"runc": stock, "snap": ours}, names)
	for _, row := range [][]string{{"pass", "3", "1"}, {"fail", "0", "2"}, {"skip", "1", "1"}, {"TestB/x", "PASS", "FAIL"}, {"TestHung", "PASS", "did not end"}} {
		if !slices.ContainsFunc(strings.Split(shown, "\n"), func(line string) bool {
			return slices.Equal(strings.Fields(line), strings.Fields(strings.Join(row, " ")))
		}) {
			t.Errorf("no row %q in\n%s", row, shown)
		}
	}
	if strings.Contains(shown, "TestA") {
		t.Errorf("a test that passed everywhere is shown:\n%s", shown)
	}

	ours.replace([]string{"TestB", "TestHung"}, result{"TestB": pass, "TestB/x": pass, "TestB/y": fail, "TestHung": pass})
	if worse := ours.worseThan(stock); len(worse) != 0 {
		t.Errorf("still worse after the repetition: %q", worse)
	}
}

// archive is an image archive with one manifest and a layer.
func archive(t *testing.T, name string) (dir string, manifest ocispec.Descriptor, layer digest.Digest) {
	t.Helper()
	blobs := map[string][]byte{"layer": []byte(name)}
	layer = digest.FromBytes(blobs["layer"])
	blobs["manifest"] = []byte(`{"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`)
	manifest = ocispec.Descriptor{Digest: digest.FromBytes(blobs["manifest"]), Annotations: map[string]string{"io.containerd.image.name": name}}
	index, err := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{manifest}})
	if err != nil {
		t.Fatal(err)
	}
	blobs[ocispec.ImageIndexFile] = index
	dir = t.TempDir()
	f, err := os.Create(filepath.Join(dir, "image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for name, data := range blobs {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, manifest, layer
}

func TestRegistry(t *testing.T) {
	const host = "registry.example"
	dir, manifest, layer := archive(t, host+"/some/name:1")
	r, err := loadRegistry(dir)
	if err != nil {
		t.Fatal(err)
	}
	certificate, authority, err := certify(r.hosts())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(r)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatal("the authority's certificate is none")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}}}

	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/v2/", 200, ""},
		{"GET", "/v2/some/name/manifests/1", 200, `{"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`},
		{"HEAD", "/v2/some/name/manifests/1", 200, ""},
		{"GET", "/v2/some/name/manifests/" + manifest.Digest.String(), 200, `{"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`},
		{"GET", "/v2/some/name/blobs/" + layer.String(), 200, host + "/some/name:1"},
		{"GET", "/v2/some/name/manifests/2", 404, ""},
		{"GET", "/v2/name/manifests/1", 404, ""},
		{"PUT", "/v2/some/name/manifests/1", 405, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+c.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || c.status == 200 && string(body) != c.body {
			t.Errorf("%s %s: %d %q, %v; want %d %q", c.method, c.path, resp.StatusCode, body, err, c.status, c.body)
		}
		if strings.Contains(c.path, "manifests") && c.status == 200 {
			if got := resp.Header.Get("Content-Type"); got != ocispec.MediaTypeImageManifest {
				t.Errorf("%s: media type %q", c.path, got)
			}
			if got := resp.Header.Get("Docker-Content-Digest"); got != manifest.Digest.String() {
				t.Errorf("%s: digest %q", c.path, got)
			}
		}
	}
	missed := r.notFound()
	slices.Sort(missed)
	if want := []string{host + "/name 1", host + "/some/name 2"}; !slices.Equal(missed, want) {
		t.Errorf("missed %q, want %q", missed, want)
	}
}

func TestOwnCgroup(t *testing.T) {
	const own = "9:name=systemd:/user\n8:pids:/p\n2:cpu,cpuacct:/a:b\n0::/unified\n"
	for options, want := range map[string]string{"rw,pids": "/p", "rw,cpu,cpuacct": "/a:b", "rw,name=systemd": "/user", "rw,memory": "/"} {
		if got := ownCgroup(own, strings.Split(options, ",")); got != want {
			t.Errorf("mounted with %s: %q, want %q", options, got, want)
		}
	}
}
