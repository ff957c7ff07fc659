package criu

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// Diagnosis is what a log of CRIU says, in words for people. The zero value
// means that the log tells of success. Its texts may hold paths and names from
// inside the container, without control characters.
type Diagnosis struct {
	// Cause is why CRIU failed: one sentence without a full stop.
	Cause string `json:"cause"`
	// Remedy is what the user can do about it; empty if nothing is known.
	Remedy string `json:"remedy,omitempty"`
	// Lines are the last lines that CRIU marked as errors, oldest first, without
	// those that are noise or only repeat that it failed.
	Lines []string `json:"lines,omitempty"`
}

// String returns cause and remedy in one line.
func (d Diagnosis) String() string {
	if d.Remedy == "" {
		return d.Cause
	}
	return d.Cause + "; " + d.Remedy
}

const (
	maxDiagnosisLines = 8
	maxLogLine        = 400
	// maxLog bounds how much of a log is read: CRIU in a loop writes gigabytes.
	maxLog = 64 << 20
)

// DiagnoseFile reads the log at path, dump.log or restore.log. A log that is
// missing or empty is a finding, too: CRIU did not come far enough to write one.
func DiagnoseFile(path string) Diagnosis {
	f, _, err := image.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nothingWritten()
	}
	if err != nil {
		return Diagnosis{Cause: fmt.Sprintf("the log %s cannot be read: %v", filepath.Base(path), err)}
	}
	defer f.Close()
	return Diagnose(f)
}

func nothingWritten() Diagnosis {
	return Diagnosis{
		Cause:  "CRIU wrote no log: it did not start, or refused its options or its config file",
		Remedy: "look for its message in the log of containerd, and run `snapctl doctor`",
	}
}

// Diagnose reads a log. The first line that is a known cause counts, because CRIU
// reports the cause first and what followed from it afterwards; if none is known, the
// first error speaks for itself. Every input gives an answer.
func Diagnose(log io.Reader) Diagnosis {
	var (
		d                   Diagnosis
		known               bool
		first, last         string
		finished, concluded bool
	)
	// A reader that fails is like a log that ends: what was read is judged.
	for line := range logLines(io.LimitReader(log, maxLog)) {
		if line == "" {
			continue
		}
		last = line
		switch {
		case strings.HasSuffix(line, "Dumping finished successfully"), strings.Contains(line, "Restore finished successfully"):
			finished = true
		case strings.HasSuffix(line, "Dumping FAILED."), strings.HasSuffix(line, "Restoring FAILED."):
			concluded = true
			continue
		}
		text, ok := errorText(line)
		if !ok || isNoise(text) {
			continue
		}
		if first == "" {
			first = text
		}
		if !known {
			d.Cause, d.Remedy, known = explain(text)
		}
		if len(d.Lines) == maxDiagnosisLines {
			d.Lines = append(d.Lines[:0], d.Lines[1:]...)
		}
		d.Lines = append(d.Lines, text)
	}
	switch {
	case finished:
		return Diagnosis{}
	case known:
	case first != "":
		d.Cause = first
	case last == "":
		return nothingWritten()
	case concluded:
		d.Cause = "CRIU failed without saying why"
		d.Remedy = "`snapctl doctor` checks the node and the images"
	default:
		d.Cause = fmt.Sprintf("the log ends in the middle: CRIU was killed or crashed, after %q", last)
		d.Remedy = "look for an out-of-memory kill, in the container's cgroup too, or a timeout"
	}
	return d
}

// logLines yields the lines of a log, cleaned and each cut to maxLogLine bytes.
func logLines(r io.Reader) func(func(string) bool) {
	return func(yield func(string) bool) {
		br := bufio.NewReaderSize(r, 16<<10)
		for {
			chunk, more, err := br.ReadLine()
			if err != nil {
				return
			}
			line := clean(string(chunk))
			for more && err == nil {
				_, more, err = br.ReadLine()
			}
			if !yield(line) {
				return
			}
		}
	}
}

// errorText returns what follows "Error (file:line): " in a line such as
// "(00.004187)   2238: Error (criu/files-reg.c:2353): Can't open …".
func errorText(line string) (string, bool) {
	_, rest, ok := strings.Cut(line, "Error (")
	if !ok {
		return "", false
	}
	if place, text, ok := strings.Cut(rest, "): "); ok && !strings.ContainsAny(place, " )") {
		rest = text
	}
	rest = strings.TrimSpace(rest)
	return rest, rest != ""
}

// clean makes a text from a log fit for a terminal and a JSON string: valid
// UTF-8, one line, no control characters, at most maxLogLine bytes.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return '?'
	}, clip(s, 4*maxLogLine))
	return clip(strings.TrimSpace(s), maxLogLine)
}

// clip cuts s to n bytes, at a character's border, and marks the cut.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const mark = "…"
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:max(n, 0)] + mark
}
