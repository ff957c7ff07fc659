package capture

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/containerd-snap/snap/checkpoint"
)

// serve offers h on a socket as a shim does, errors mapped by an interceptor.
func serve(t *testing.T, h Handler) string {
	t.Helper()
	s, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(
		func(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
			resp, err := method(ctx, unmarshal)
			return resp, errgrpc.ToGRPC(err)
		}))
	if err != nil {
		t.Fatal(err)
	}
	Register(s, h)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.WithoutCancel(t.Context()), l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return path
}

func TestRoundTrip(t *testing.T) {
	want := checkpoint.Entry{
		Digest: "sha256:abc",
		Name:   "rails",
		Checkpoint: checkpoint.Checkpoint{
			SchemaVersion: checkpoint.SchemaVersion,
			CreatedAt:     time.Date(2024, 2, 3, 4, 5, 6, 7, time.UTC),
			Source:        checkpoint.Source{Container: "app", Processes: 3},
			Fingerprint:   checkpoint.Fingerprint{"args": "ruby\x00<puma>"},
			Host:          checkpoint.HostFacts{Arch: "amd64", CPUFeatures: []string{"avx"}, CRIU: 40201},
			Files:         []checkpoint.File{{Path: "pages-1.img", Size: 1 << 40, Pages: true}},
			Timing:        checkpoint.Timing{PauseMS: 1.5},
		},
		State: checkpoint.State{Failures: 1, LastFailure: "no luck"},
	}
	req := Request{ID: "app", Name: "rails", Replace: true, Stop: true}
	address := serve(t, func(_ context.Context, got Request) (checkpoint.Entry, error) {
		if got != req {
			t.Errorf("the shim was asked %+v", got)
		}
		return want, nil
	})
	for _, a := range []string{address, "unix://" + address} {
		got, err := Call(t.Context(), a, req)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Call %s: %+v, %v", a, got, err)
		}
	}
}

// The class of an error, which a program goes by, and its words, which a person
// reads, come through.
func TestErrorClasses(t *testing.T) {
	for _, class := range []error{
		errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition,
		errdefs.ErrInvalidArgument, errdefs.ErrUnavailable, context.DeadlineExceeded,
	} {
		address := serve(t, func(context.Context, Request) (checkpoint.Entry, error) {
			return checkpoint.Entry{}, errors.Join(errors.New("task app: use the overlayfs snapshotter"), class)
		})
		_, err := Call(t.Context(), address, Request{ID: "app"})
		if !errors.Is(err, class) || !strings.Contains(err.Error(), "use the overlayfs snapshotter") {
			t.Errorf("%v came as %v", class, err)
		}
	}
}

func TestNoShim(t *testing.T) {
	_, err := Call(t.Context(), "unix://"+filepath.Join(t.TempDir(), "gone"), Request{ID: "app"})
	if err == nil || !strings.Contains(err.Error(), "reach the shim of task app") {
		t.Error(err)
	}
}

// A caller that gives up gets its own error, and the shim learns of it.
func TestCallerGivesUp(t *testing.T) {
	reached := make(chan struct{})
	address := serve(t, func(ctx context.Context, _ Request) (checkpoint.Entry, error) {
		close(reached)
		<-ctx.Done()
		return checkpoint.Entry{}, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reached
		cancel()
	}()
	if _, err := Call(ctx, address, Request{ID: "app"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRequestThatIsNoJSON(t *testing.T) {
	address := serve(t, func(context.Context, Request) (checkpoint.Entry, error) {
		t.Error("the handler was called")
		return checkpoint.Entry{}, nil
	})
	conn, err := net.Dial("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	defer c.Close()
	for _, value := range []string{"", "{", `{"id":7}`} {
		err := c.Call(t.Context(), service, method, &anypb.Any{TypeUrl: typeURL, Value: []byte(value)}, &anypb.Any{})
		if !errdefs.IsInvalidArgument(errgrpc.ToNative(err)) {
			t.Errorf("%q: %v", value, err)
		}
	}
}
