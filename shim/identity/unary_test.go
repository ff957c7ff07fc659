package identity

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A message of an error may hold anything; an answer may take several frames.
func TestWire(t *testing.T) {
	client := serve(t, &containerd{containers: map[string]*containers.Container{
		"large": {ID: "large", Labels: map[string]string{"l": strings.Repeat("x", 2<<20)}, Image: "i"},
		"huge":  {ID: "huge", Labels: map[string]string{"l": strings.Repeat("x", 17<<20)}},
	}})
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(t.Context(), "test"), 30*time.Second)
	defer cancel()
	if got, err := client.Lookup(ctx, "large"); err != nil || got.Image != "i" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := client.Lookup(ctx, "huge"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "too long") {
		t.Errorf("%v", err)
	}
	if _, err := client.Lookup(ctx, strings.Repeat("i", maxFrame)); !strings.Contains(err.Error(), "too long") {
		t.Errorf("%v", err)
	}
	_, err := client.Lookup(namespaces.WithNamespace(ctx, "other"), "app")
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "[other]") {
		t.Errorf("%v", err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{"": "", "a%20b": "a b", "%C3%B6%": "ö%", "%zz%4": "%zz%4"} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A server that goes away in the middle is told as one.
func TestCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write(appendFrame(nil, frameSettings, 0, 0, nil))
			c.Close()
		}
	}()
	_, err = Client{Address: path}.Lookup(namespaces.WithNamespace(t.Context(), "test"), "app")
	if status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
}

// recorded is a connection on which the server has said all that it says.
type recorded struct {
	io.Reader
	io.Writer
}

func headers(fields ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.Bytes()
}

func FuzzAnswer(f *testing.F) {
	trailers := headers("grpc-status", "0")
	good := appendFrame(nil, frameSettings, 0, 0, []byte{0, 4, 0, 1, 0, 0})
	good = appendFrame(good, framePing, 0, 0, make([]byte, 8))
	good = appendFrame(good, frameData, flagPadded, stream, []byte{1, 0, 0, 0, 0, 2, 'o', 'k', 0})
	good = appendFrame(good, frameHeaders, flagEndStream, stream, trailers[:1])
	good = appendFrame(good, frameContinuation, flagEndHeaders, stream, trailers[1:])
	if r, err := answer(recorded{bytes.NewReader(good), io.Discard}); err != nil || string(r.body) != "ok" {
		f.Fatalf("%q, %v", r.body, err)
	}
	f.Add(good)
	f.Add(appendFrame(nil, frameGoAway, 0, 0, make([]byte, 8)))
	f.Add(appendFrame(nil, frameReset, 0, stream, make([]byte, 4)))
	f.Add(appendFrame(nil, frameHeaders, flagPriority|flagPadded|flagEndStream|flagEndHeaders, stream, []byte{0, 0, 0, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var said bytes.Buffer
		r, err := answer(recorded{bytes.NewReader(data), &said})
		if err == nil && r.status == codes.OK && len(r.body) > window {
			t.Errorf("%d bytes", len(r.body))
		}
		if said.Len() > len(data) {
			t.Errorf("said %d bytes to %d", said.Len(), len(data))
		}
	})
}
