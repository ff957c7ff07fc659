package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// replies answers requests in the place of a program.
type replies func(n int) (status int, body string, err error)

func (r replies) program() *program {
	n := 0
	return &program{&http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		n++
		status, body, err := r(n)
		if err != nil {
			return nil, err
		}
		return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(body))}, nil
	})}}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func counting(n int) (int, string, error) {
	return http.StatusOK, fmt.Sprintf(`{"boot_id": "b", "counter": %d, "answer": {"matches": 1}}`, n), nil
}

func TestAsk(t *testing.T) {
	refused := errors.New("refused")
	for name, tc := range map[string]struct {
		replies replies
		want    string
	}{
		"answers":   {counting, ""},
		"not ready": {func(int) (int, string, error) { return http.StatusServiceUnavailable, "", nil }, "status"},
		"nobody":    {func(int) (int, string, error) { return 0, "", refused }, "refused"},
		"nonsense":  {func(int) (int, string, error) { return http.StatusOK, "<html>", nil }, `"<html>"`},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := tc.replies.program().ask(t.Context())
			switch {
			case tc.want == "" && (err != nil || a.BootID != "b" || a.Counter != 1 || string(a.Result) != `{"matches": 1}`):
				t.Errorf("answer %+v, error %v", a, err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestClientGoesOnAsking(t *testing.T) {
	enough := make(chan struct{})
	l := life{id: "x", first: answer{BootID: "b"}, program: replies(func(n int) (int, string, error) {
		if n == 3 {
			close(enough)
		}
		return counting(n)
	}).program()}
	c := goOnAsking(t.Context(), l)
	<-enough
	samples, err := c.finish()
	if err != nil || len(samples) < 2 {
		t.Fatalf("%d samples, error %v", len(samples), err)
	}
	for i, s := range samples {
		if s.counter != i+1 || s.at.IsZero() {
			t.Errorf("sample %d: %+v", i, s)
		}
	}
}

func TestClientFails(t *testing.T) {
	for name, second := range map[string]replies{
		"no answer":    func(int) (int, string, error) { return http.StatusInternalServerError, "", nil },
		"another life": func(int) (int, string, error) { return http.StatusOK, `{"boot_id": "c", "counter": 1}`, nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := life{id: "x", first: answer{BootID: "b"}, program: replies(func(n int) (int, string, error) {
				if n == 1 {
					return counting(n)
				}
				return second(n)
			}).program()}
			c := goOnAsking(t.Context(), l)
			<-c.done
			samples, err := c.finish()
			if err == nil || len(samples) != 1 {
				t.Errorf("%d samples, error %v", len(samples), err)
			}
		})
	}
}

func TestPoll(t *testing.T) {
	n := 0
	if err := poll(t.Context(), func() (bool, error) { n++; return n == 3, nil }); err != nil || n != 3 {
		t.Errorf("polled %d times, error %v", n, err)
	}
	broken := errors.New("broken")
	if err := poll(t.Context(), func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	cause := errors.New("the command failed")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := poll(ctx, func() (bool, error) { cancel(cause); return false, ctx.Err() })
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Millisecond)
	defer stop()
	if err := poll(ctx, func() (bool, error) { return false, nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that the deadline passed", err)
	}
}

func TestDamage(t *testing.T) {
	store := t.TempDir()
	images := filepath.Join(store, "entries", "sha256-00", "images")
	if err := os.MkdirAll(images, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := damage(store); err == nil {
		t.Error("damaged a checkpoint that is not there")
	}
	file := filepath.Join(images, "mm-1.img")
	if err := os.WriteFile(file, []byte("abcd"), 0o600); err != nil {
		t.Fatal(err)
	}
	name, err := damage(store)
	if err != nil || name != "mm-1.img" {
		t.Errorf("damaged %q, error %v", name, err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "abbd" {
		t.Errorf("file %q, error %v", got, err)
	}
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want settings
		ok   bool
	}{
		{nil, settings{3, "out/demo.json"}, true},
		{[]string{"--runs", "5", "--out", "x"}, settings{5, "x"}, true},
		{[]string{"--runs", "0"}, settings{}, false},
		{[]string{"--runs", "many"}, settings{}, false},
		{[]string{"more"}, settings{}, false},
	} {
		got, err := parse(tc.args)
		if (err == nil) != tc.ok || tc.ok && got != tc.want {
			t.Errorf("parse %q: %+v, error %v", tc.args, got, err)
		}
	}
}
