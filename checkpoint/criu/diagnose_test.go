package criu

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The logs in testdata are excerpts of real ones: each error with the line before
// it, and the end. Paths are replaced.
func TestDiagnoseRealLogs(t *testing.T) {
	logs, err := filepath.Glob("testdata/*.log")
	if err != nil || len(logs) < 40 {
		t.Fatalf("testdata holds %d logs (%v)", len(logs), err)
	}
	for _, log := range logs {
		t.Run(filepath.Base(log), func(t *testing.T) {
			d := DiagnoseFile(log)
			got := "cause: " + d.Cause + "\nremedy: " + d.Remedy + "\n"
			for _, l := range d.Lines {
				got += "line: " + l + "\n"
			}
			golden := strings.TrimSuffix(log, ".log") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			if strings.Contains(log, "-finished.log") != (d.Cause == "") {
				t.Errorf("cause %q of %s", d.Cause, log)
			}
		})
	}
}

func TestDiagnose(t *testing.T) {
	long := strings.Repeat("x", 3*maxLogLine)
	for name, tc := range map[string]struct{ log, cause, remedy string }{
		"empty":            {"", nothingWritten().Cause, "look for its message"},
		"blank lines":      {"\n \n", nothingWritten().Cause, "look for its message"},
		"unknown":          {"(00.1) Error (criu/x.c:1): Moon is full\n(00.2) Error (criu/y.c:2): Dumping FAILED.\n", "Moon is full", ""},
		"first unknown":    {"Error (a.c:1): One\nError (a.c:2): Two\n", "One", ""},
		"known over first": {"Error (a.c:1): One\nError (a.c:2): File etc/a has bad size 3 (expect 2)\n", "the file /etc/a changed since the capture: it has 3 bytes and had 2", "the container's image"},
		"first known":      {"Error (a.c:1): Can't fork for 7: File exists\nError (a.c:2): Can't fork for 8: File exists\n", "process id 7 is taken: processes get back the ids that they had", "give the container"},
		"noise only":       {"Error (a.c:1): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\nError (a.c:2): Dumping FAILED.\n", "CRIU failed without saying why", "snapctl"},
		"killed":           {"(00.1) Dumping pages\n(00.2) Seized 17", `the log ends in the middle: CRIU was killed or crashed, after "(00.2) Seized 17"`, "out-of-memory"},
		"restored":         {"Error (a.c:1): harmless\n(00.1) Restore finished successfully. Tasks resumed.\n(00.2) Writing stats\n", "", ""},
		"control":          {"Error (a.c:1): \x1b[31mred\x00\xff\n", "?[31mred??", ""},
		"argument as text": {"Error (a.c:1): File $2 has bad size $1 (expect 2)\n", "the file /$2 changed since the capture: it has $1 bytes and had 2", "the container's image"},
		"long":             {"Error (a.c:1): " + long + "\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := Diagnose(strings.NewReader(tc.log))
			if name == "long" {
				if len(d.Cause) > maxLogLine || len(d.Cause) < maxLogLine/2 {
					t.Errorf("cause has %d bytes", len(d.Cause))
				}
				return
			}
			if d.Cause != tc.cause || !strings.Contains(d.Remedy, tc.remedy) || (tc.remedy == "") != (d.Remedy == "") {
				t.Errorf("got %q, remedy %q; want %q, remedy %q", d.Cause, d.Remedy, tc.cause, tc.remedy)
			}
		})
	}
}

func TestDiagnoseKeepsLastLines(t *testing.T) {
	var log strings.Builder
	for i := range 3 * maxDiagnosisLines {
		log.WriteString("Error (a.c:1): number " + string(rune('A'+i)) + "\n")
	}
	d := Diagnose(strings.NewReader(log.String()))
	if len(d.Lines) != maxDiagnosisLines || d.Lines[maxDiagnosisLines-1] != "number X" || d.Cause != "number A" {
		t.Errorf("got %+v", d)
	}
}

func TestDiagnoseUnreadable(t *testing.T) {
	r := io.MultiReader(strings.NewReader("Error (a.c:1): Can't fork for 7: File exists\n"), iotest.ErrReader(errors.New("disk")))
	if d := Diagnose(r); !strings.Contains(d.Cause, "process id 7") {
		t.Errorf("what was read does not count: %+v", d)
	}
	dir := t.TempDir()
	if d := DiagnoseFile(filepath.Join(dir, "dump.log")); d.Cause != nothingWritten().Cause {
		t.Errorf("missing log: %+v", d)
	}
	if d := DiagnoseFile(dir); !strings.Contains(d.Cause, "cannot be read") {
		t.Errorf("directory: %+v", d)
	}
}

// Each pattern must be able to win against those before it.
func TestPatternsAreReachable(t *testing.T) {
	for _, p := range patterns {
		text := strings.ReplaceAll(p.text, "*", "17")
		cause, _, ok := explain(text)
		if !ok || cause == "" {
			t.Errorf("%q is not explained", text)
		}
		args, _ := match(p.text, text)
		if want := fill(p.cause, args); cause != want {
			t.Errorf("%q is explained by another pattern: %q, not %q", text, cause, want)
		}
		if stars := strings.Count(p.text, "*"); strings.Contains(cause, "$") {
			t.Errorf("%q refers to more than its %d stars: %q", p.text, stars, cause)
		}
		if strings.HasSuffix(cause, ".") || strings.HasSuffix(p.remedy, ".") {
			t.Errorf("%q ends with a full stop", p.text)
		}
	}
}

func FuzzDiagnose(f *testing.F) {
	logs, _ := filepath.Glob("testdata/*.log")
	for _, log := range logs {
		data, err := os.ReadFile(log)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	for _, p := range patterns {
		f.Add("(00.1)  12: Error (criu/a.c:1): " + p.text + "\n")
	}
	f.Fuzz(func(t *testing.T, log string) {
		d := Diagnose(strings.NewReader(log))
		for _, s := range append([]string{d.Cause, d.Remedy}, d.Lines...) {
			if !utf8.ValidString(s) || strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
				t.Errorf("not fit for a terminal: %q", s)
			}
			if len(s) > 4*maxLogLine {
				t.Errorf("%d bytes", len(s))
			}
		}
		if len(d.Lines) > maxDiagnosisLines {
			t.Errorf("%d lines", len(d.Lines))
		}
	})
}
