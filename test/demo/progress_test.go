package main

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
)

// clock is a step's time, which differs from run to run.
var clock = regexp.MustCompile(`\[ *[0-9.]+ s\]`)

func TestProgressWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, false)
	if err := p.step("first", func() (string, error) { return "good", nil }); err != nil {
		t.Error(err)
	}
	cause := errors.New("no luck")
	err := p.step("second", func() (string, error) {
		p.note("a command", "one\ntwo\n")
		p.note("a remark", "")
		return "half", cause
	})
	if !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
	want := "T first: good\nT second: FAILED\n" +
		indent + "a command\n" + indent + "  one\n" + indent + "  two\n\n" +
		indent + "a remark\n\n"
	if got := clock.ReplaceAllString(out.String(), "T"); got != want {
		t.Errorf("printed:\n%q\nwant:\n%q", got, want)
	}
}

func TestProgressOnTerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, true)
	err := p.step("work", func() (string, error) { return "done", nil })
	if err != nil {
		t.Error(err)
	}
	got := clock.ReplaceAllString(out.String(), "T")
	if !strings.HasPrefix(got, erase+"T work "+wheel[:1]) || !strings.HasSuffix(got, erase+"T work: done\n") {
		t.Errorf("printed %q", got)
	}
}

func TestProgressIsNoTerminal(t *testing.T) {
	if isTerminal(&bytes.Buffer{}) {
		t.Error("a buffer is taken for a terminal")
	}
}
