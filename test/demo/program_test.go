package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd-snap/snap/test/search"
)

// replies answers requests in the place of a program.
type replies func(n int) (status int, body string, err error)

func (r replies) program() *search.Program {
	n := 0
	return &search.Program{HTTP: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
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

func TestClientGoesOnAsking(t *testing.T) {
	enough := make(chan struct{})
	l := life{id: "x", first: search.Answer{BootID: "b"}, program: replies(func(n int) (int, string, error) {
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
			l := life{id: "x", first: search.Answer{BootID: "b"}, program: replies(func(n int) (int, string, error) {
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
