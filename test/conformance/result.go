package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// result is what a run of the suite came to: every test and subtest that
// ended, by its name.
type result map[string]outcome

// add takes over what a test ended with. One that failed once has failed.
func (r result) add(name string, o outcome) {
	if r[name] != fail {
		r[name] = o
	}
}

// top is the test that a test or subtest belongs to.
func top(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}

// summary is a result as the report has it. It speaks of whole tests.
type summary struct {
	Passed  int      `json:"passed"`
	Failed  []string `json:"failed"`
	Skipped []string `json:"skipped"`
}

// summarise counts what became of the tests names. One that did not end failed.
func (r result) summarise(names []string) summary {
	s := summary{Failed: []string{}, Skipped: []string{}}
	for _, name := range names {
		switch r[name] {
		case pass:
			s.Passed++
		case skip:
			s.Skipped = append(s.Skipped, name)
		default:
			s.Failed = append(s.Failed, name)
		}
	}
	slices.Sort(s.Failed)
	slices.Sort(s.Skipped)
	return s
}

// worseThan lists the tests and subtests that passed in stock and did not in r.
func (r result) worseThan(stock result) []string {
	var names []string
	for name, o := range stock {
		if o == pass && r[name] != pass {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// tops are the whole tests among, or around, the tests names.
func tops(names []string) []string {
	seen := map[string]bool{}
	for _, n := range names {
		seen[top(n)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// replace takes over what a repetition of the tests came to.
func (r result) replace(tests []string, again result) {
	maps.DeleteFunc(r, func(name string, _ outcome) bool { return slices.Contains(tests, top(name)) })
	maps.Copy(r, again)
}

// retried is a test that was worse than with the stock shim and was run again.
type retried struct {
	Column string `json:"column"`
	Test   string `json:"test"`
	// Runc and Ours are what the repetition came to with either shim.
	Runc outcome `json:"runc"`
	Ours outcome `json:"ours"`
}

// report is what out/conformance.json holds: a summary a column, by its key, and
// what was run twice.
type report struct {
	columns map[string]summary
	retried []retried
}

func (r report) MarshalJSON() ([]byte, error) {
	all := map[string]any{"retried": r.retried}
	for key, s := range r.columns {
		all[key] = s
	}
	if r.retried == nil {
		all["retried"] = []retried{}
	}
	return json.Marshal(all)
}

// write replaces the file name by the report.
func (r report) write(name string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	whole := name + ".new"
	if err := errors.Join(os.WriteFile(whole, append(data, '\n'), 0o644), os.Rename(whole, name)); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// table shows the columns side by side: the counts, and each test that did not
// pass everywhere.
func table(columns []column, results map[string]result, names []string) string {
	var b strings.Builder
	row := func(first string, cell func(c column) string) {
		fmt.Fprintf(&b, "%-42s", first)
		for _, c := range columns {
			fmt.Fprintf(&b, " %-13s", cell(c))
		}
		b.WriteString("\n")
	}
	row("", func(c column) string { return c.key })
	for _, o := range []outcome{pass, fail, skip} {
		row(strings.ToLower(string(o)), func(c column) string {
			s := results[c.key].summarise(names)
			return strconv.Itoa(map[outcome]int{pass: s.Passed, fail: len(s.Failed), skip: len(s.Skipped)}[o])
		})
	}
	all := map[string]bool{}
	for _, r := range results {
		for name := range r {
			all[name] = true
		}
	}
	for _, name := range names {
		all[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if slices.ContainsFunc(columns, func(c column) bool { return results[c.key][name] != pass }) {
			row(name, func(c column) string {
				if o, ok := results[c.key][name]; ok {
					return string(o)
				}
				return "did not end"
			})
		}
	}
	return b.String()
}
