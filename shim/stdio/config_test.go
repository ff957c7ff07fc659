package stdio

import (
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		config Config
		want   []string // parts of the error; none if it is valid
	}{
		"nothing":              {Config{}, nil},
		"paths":                {Config{Stdin: "/a", Stdout: "/b", Stderr: "/c"}, nil},
		"path like a URI":      {Config{Stdout: "/a%zz?b#c"}, nil},
		"fifo":                 {Config{Stdout: "fifo:///a"}, nil},
		"file":                 {Config{Stdout: "file:///a", Stderr: "file:///a"}, nil},
		"file, one slash":      {Config{Stdout: "file:/a"}, nil},
		"two files":            {Config{Stdout: "file:///a", Stderr: "file:///b"}, nil},
		"binary":               {Config{Stdout: "binary:///a?b=c"}, nil},
		"binary on a terminal": {Config{Stdout: "binary-v2:///a", Stderr: "/b", Terminal: true}, nil},
		"relative stdin":       {Config{Stdin: "a"}, []string{`stdin "a"`, "absolute"}},
		"stdin by URI":         {Config{Stdin: "fifo:///a"}, []string{`stdin "fifo:///a"`}},
		"relative":             {Config{Stdout: "a"}, []string{`stdout "a"`, "relative", "binary-v2"}},
		"directory":            {Config{Stdout: "/a/"}, []string{`stdout "/a/"`, "no file"}},
		"unknown scheme":       {Config{Stderr: "https://a/b"}, []string{`stderr "https://a/b"`, `"https" is unknown`, "fifo, file, binary or binary-v2"}},
		"file without path":    {Config{Stdout: "file://"}, []string{`stdout "file://"`, "no file"}},
		"file, opaque":         {Config{Stdout: "file:a"}, []string{"no file"}},
		"two slashes":          {Config{Stdout: "file://var/log"}, []string{`"var" is read as a host`, "three slashes"}},
		"unparsable":           {Config{Stdout: "file:///%zz"}, []string{`"file:///%zz"`, "escape"}},
		"bad query":            {Config{Stdout: "binary:///a?b=%zz"}, []string{"escape"}},
		"NUL":                  {Config{Stdout: "file:///a%00b"}, []string{"no file"}},
		"NUL in an argument":   {Config{Stdout: "binary:///a?b=%00"}, []string{"NUL"}},
		"two loggers":          {Config{Stdout: "binary:///a", Stderr: "binary:///b"}, []string{`stderr "binary:///b"`, "both"}},
		"logger of stderr":     {Config{Stderr: "binary:///b"}, []string{"both"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.config.Validate()
			if test.want == nil {
				must(t, err)
				return
			}
			expectError(t, err, test.want...)
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%v is not ErrInvalidArgument", err)
			}
			if _, openErr := Open("id", "ns", test.config, 0, 0); openErr == nil || openErr.Error() != err.Error() {
				t.Errorf("Open says %v, Validate %v", openErr, err)
			}
		})
	}
}

func TestQueryArgs(t *testing.T) {
	for query, want := range map[string][]string{
		"":               nil,
		"z=1&a=2":        {"z", "1", "a", "2"},
		"a=1&b=2&a=3":    {"a", "1", "b", "2"},
		"flag":           {"flag", ""},
		"--p=a%20b+c%26": {"--p", "a b c&"},
	} {
		got, err := queryArgs(query)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("arguments of %q are %q, %v; want %q", query, got, err, want)
		}
	}
}

func FuzzValidate(f *testing.F) {
	for _, seed := range [][3]string{
		{"", "", ""},
		{"/in", "/out", "/err"},
		{"/in", "fifo:///out", "file:///err"},
		{"", "binary:///bin/logger?a=b&c=%20", ""},
		{"", "binary-v2://host/x", "binary:opaque"},
		{"rel", "file:///%00", ":"},
		{"", "FILE://localhost/a", "file:///a/../"},
	} {
		f.Add(seed[0], seed[1], seed[2], false)
		f.Add(seed[0], seed[1], seed[2], true)
	}
	f.Fuzz(func(t *testing.T, stdin, stdout, stderr string, terminal bool) {
		c := Config{Stdin: stdin, Stdout: stdout, Stderr: stderr, Terminal: terminal}
		p, err := c.plan()
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%v is not ErrInvalidArgument", err)
			}
			return
		}
		for _, target := range []target{p.stdout, p.stderr} {
			if target.kind != kindNone && (!filepath.IsAbs(target.path) || strings.Contains(target.path, "\x00")) {
				t.Errorf("%+v accepted", target)
			}
		}
		if p.stderr.kind == kindLogger && !p.joined {
			t.Errorf("%+v has a logging program for stderr alone", p)
		}
	})
}

func FuzzQueryArgs(f *testing.F) {
	for _, seed := range []string{"", "a=b", "a&a=1&=", "%61=1&a=2", "a;b", "%", "+=+&&"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		args, err := queryArgs(query)
		if err != nil {
			return
		}
		values, err := url.ParseQuery(query)
		must(t, err)
		if len(args) != 2*len(values) {
			t.Fatalf("%q has %d keys, arguments are %q", query, len(values), args)
		}
		for i := 0; i < len(args); i += 2 {
			if got := values[args[i]]; len(got) == 0 || got[0] != args[i+1] {
				t.Errorf("argument %q is %q, want the first of %q", args[i], args[i+1], got)
			}
		}
	})
}
