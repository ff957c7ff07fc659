package create

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/fixture"
	"github.com/containerd-snap/snap/cmd/snapctl/internal/progress"
	"github.com/containerd-snap/snap/shim/capture"
)

// shim serves h as the shim of the container "web", whose start it records, and
// returns what ends it.
func shim(t *testing.T, st *store.Store, h capture.Handler) (end func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(
		func(ctx context.Context, u ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, m ttrpc.Method) (any, error) {
			resp, err := m(ctx, u)
			return resp, errgrpc.ToGRPC(err) // as shim/task does
		}))
	if err != nil {
		t.Fatal(err)
	}
	if h != nil {
		capture.Register(server, h)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	end = func() {
		l.Close()
		server.Close()
	}
	t.Cleanup(func() {
		end()
		<-served
	})
	fixture.Start(t, st, "web", func(s *checkpoint.Start) { s.Address = "unix://" + path })
	return end
}

func request() Request {
	return Request{Namespace: "default", Container: "web", Timeout: time.Minute}
}

func TestRun(t *testing.T) {
	st := fixture.Store(t)
	var got capture.Request
	shim(t, st, func(_ context.Context, r capture.Request) (checkpoint.Entry, error) {
		got = r
		return fixture.Add(t, st, r.Name, fixture.Checkpoint(0)), nil
	})
	req := request()
	req.Name, req.Stop = "web-ready", true
	e, err := Run(t.Context(), st, req, progress.Output{})
	if err != nil {
		t.Fatal(err)
	}
	if want := (capture.Request{ID: "web", Name: "web-ready", Stop: true}); got != want {
		t.Errorf("the shim was asked for %+v, want %+v", got, want)
	}
	registered, err := st.Resolve("web-ready")
	if err != nil || e.Digest != registered.Digest || e.Name != "web-ready" || e.Checkpoint.Bytes() == 0 {
		t.Errorf("Run = %+v, registered is %+v (%v)", e, registered, err)
	}
	req.Replace = true
	if _, err := Run(t.Context(), st, req, progress.Output{}); err != nil || !got.Replace {
		t.Errorf("Run with Replace: %v, the shim was asked for %+v", err, got)
	}
}

// TestRefused holds that the shim is not asked for what cannot succeed.
func TestRefused(t *testing.T) {
	st := fixture.Store(t)
	shim(t, st, func(context.Context, capture.Request) (checkpoint.Entry, error) {
		t.Error("the shim was asked")
		return checkpoint.Entry{}, nil
	})
	fixture.Add(t, st, "taken", fixture.Checkpoint(0))
	fixture.Start(t, st, "broken", func(s *checkpoint.Start) { s.Error = "no such file" })
	for name, c := range map[string]struct {
		change func(*Request)
		err    error
		says   string
	}{
		"bad name":      {func(r *Request) { r.Name = "Web" }, checkpoint.ErrInvalid, "'W' is not allowed"},
		"bad name, too": {func(r *Request) { r.Name, r.Replace = "0123456789", true }, checkpoint.ErrInvalid, "reads like a digest"},
		"taken name":    {func(r *Request) { r.Name = "taken" }, checkpoint.ErrExists, "--replace"},
		"unknown":       {func(r *Request) { r.Container = "other" }, checkpoint.ErrNotFound, "capture other: "},
		"bad id":        {func(r *Request) { r.Container = "a\x1bb" }, checkpoint.ErrInvalid, `capture a\x1bb: `},
		"failed start":  {func(r *Request) { r.Container = "broken" }, nil, "no such file; `snapctl explain"},
	} {
		t.Run(name, func(t *testing.T) {
			req := request()
			c.change(&req)
			_, err := Run(t.Context(), st, req, progress.Output{})
			if err == nil || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Run = %v, want %v and %q", err, c.err, c.says)
			}
		})
	}
}

func TestShimErrors(t *testing.T) {
	for name, c := range map[string]struct {
		handler capture.Handler
		says    string
	}{
		"task is gone":     {fails(fmt.Errorf("task web: %w", errdefs.ErrNotFound)), "the container has ended or was deleted"},
		"not capturable":   {fails(fmt.Errorf("it has its own user namespace: %w", errdefs.ErrFailedPrecondition)), "it has its own user namespace"},
		"without a class":  {fails(errors.New("CRIU died")), "CRIU died"},
		"name taken since": {fails(fmt.Errorf("name taken: %w", errdefs.ErrAlreadyExists)), "name taken"},
		"without capture":  {nil, "a version without capture"},
	} {
		t.Run(name, func(t *testing.T) {
			st := fixture.Store(t)
			shim(t, st, c.handler)
			_, err := Run(t.Context(), st, request(), progress.Output{})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Run = %v, want %q", err, c.says)
			}
			if errors.Is(err, ErrNoShim) {
				t.Errorf("Run = %v, but the shim answers", err)
			}
		})
	}
}

func fails(err error) capture.Handler {
	return func(context.Context, capture.Request) (checkpoint.Entry, error) { return checkpoint.Entry{}, err }
}

func TestShimGone(t *testing.T) {
	st := fixture.Store(t)
	end := shim(t, st, fails(nil))
	end()
	if _, err := Run(t.Context(), st, request(), progress.Output{}); !errors.Is(err, ErrNoShim) {
		t.Errorf("Run = %v, want %v", err, ErrNoShim)
	}
}

func TestShimEndsDuringCapture(t *testing.T) {
	st := fixture.Store(t)
	begun := make(chan struct{})
	end := shim(t, st, func(ctx context.Context, _ capture.Request) (checkpoint.Entry, error) {
		close(begun)
		<-ctx.Done()
		return checkpoint.Entry{}, ctx.Err()
	})
	go func() {
		<-begun
		end()
	}()
	if _, err := Run(t.Context(), st, request(), progress.Output{}); !errors.Is(err, ErrNoShim) {
		t.Errorf("Run = %v, want %v", err, ErrNoShim)
	}
}

func TestInterruptedAndLate(t *testing.T) {
	st := fixture.Store(t)
	begun := make(chan struct{}, 2)
	shim(t, st, func(ctx context.Context, _ capture.Request) (checkpoint.Entry, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return checkpoint.Entry{}, ctx.Err()
	})
	req := request()
	req.Timeout = 20 * time.Millisecond
	if _, err := Run(t.Context(), st, req, progress.Output{}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "--timeout") {
		t.Errorf("Run = %v, want it to name --timeout", err)
	}
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	if _, err := Run(ctx, st, request(), progress.Output{}); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("Run = %v, want it to say that it was interrupted", err)
	}
}

func TestDrafts(t *testing.T) {
	st := fixture.Store(t)
	d := newDrafts(st.Root())
	if n := d.written(); n != 0 {
		t.Errorf("%d bytes without a draft", n)
	}
	if n := newDrafts(filepath.Join(st.Root(), "nothing")).written(); n != 0 {
		t.Errorf("%d bytes without a store", n)
	}
	draft, err := st.NewDraft()
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Discard()
	writeFile(t, filepath.Join(draft.ImagesDir(), "pages-1.img"), 5000)
	writeFile(t, filepath.Join(draft.DiffDir(), "state.db"), 77)
	if n := d.written(); n != 5077 {
		t.Errorf("%d bytes written, want 5077", n)
	}
	if got, want := d.line("web", 2900*time.Millisecond), "capturing web: 2s, 4.96 KiB written"; got != want {
		t.Errorf("line = %q, want %q", got, want)
	}
}

func writeFile(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}
