package stdio

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// Config names the standard streams of a process as containerd's Create and
// Exec requests do. An empty string names nothing: stdin then reads as ended,
// stdout and stderr are read and thrown away.
//
// Stdin is the absolute path of a FIFO. Stdout and Stderr are one of
//
//	/path, fifo:///path      a FIFO that someone reads, or an existing file or device
//	file:///path             a file that is created if needed and appended to
//	binary:///path?k=v       a logging program, started with the arguments k v
//	binary-v2:///path?k=v    the same, which must write a byte when it is ready
//
// If Stdout is a file or a logging program and Stderr is empty or equal, both
// streams go there. A logging program takes both streams or none.
type Config struct {
	Stdin  string
	Stdout string
	Stderr string
	// Terminal gives the process a pseudo-terminal. Its output goes to Stdout;
	// Stderr is not looked at.
	Terminal bool
}

// Validate says whether c can be served. Its error wraps
// errdefs.ErrInvalidArgument, and names the value and what is allowed.
func (c Config) Validate() error {
	_, err := c.plan()
	return err
}

// allowed is the remedy in errors about an output's name.
const allowed = "give an absolute path, or a URI of scheme fifo, file, binary or binary-v2 with an absolute path"

// plan is a Config after parsing.
type plan struct {
	stdin          string
	stdout, stderr target
	// joined says that stderr goes where stdout goes.
	joined   bool
	terminal bool
}

// kind says how a target is to be opened.
type kind int

const (
	kindNone kind = iota
	kindPath
	kindFile
	kindLogger
)

// target is where an output goes.
type target struct {
	kind kind
	path string
	// args are the arguments of a logging program.
	args []string
	// strict demands a byte from a logging program, not only the end of file.
	strict bool
}

// String names t for errors. It leaves out the arguments of a logging program,
// which can hold secrets.
func (t target) String() string {
	if t.kind == kindNone {
		return "nothing"
	}
	return t.path
}

func (c Config) plan() (plan, error) {
	p := plan{stdin: c.Stdin, terminal: c.Terminal}
	if c.Stdin != "" && !isFilePath(c.Stdin) {
		return plan{}, fmt.Errorf("parse stdin %q: give the absolute path of a FIFO: %w", c.Stdin, errdefs.ErrInvalidArgument)
	}
	var err error
	if p.stdout, err = parseTarget("stdout", c.Stdout); err != nil {
		return plan{}, err
	}
	if c.Terminal {
		return p, nil
	}
	if p.stderr, err = parseTarget("stderr", c.Stderr); err != nil {
		return plan{}, err
	}
	switch {
	case c.Stderr == "":
		p.joined = p.stdout.kind == kindFile || p.stdout.kind == kindLogger
	case c.Stderr == c.Stdout:
		p.joined = true
	case p.stdout.kind == kindLogger || p.stderr.kind == kindLogger:
		return plan{}, fmt.Errorf("parse stderr %q: a logging program takes both streams, and stdout is %q: name the same for both: %w",
			c.Stderr, c.Stdout, errdefs.ErrInvalidArgument)
	}
	return p, nil
}

func parseTarget(stream, value string) (target, error) {
	invalid := func(reason string) error {
		return fmt.Errorf("parse %s %q: %s; %s: %w", stream, value, reason, allowed, errdefs.ErrInvalidArgument)
	}
	if value == "" {
		return target{}, nil
	}
	// A path is taken as it is: it may hold characters that mean something in a URI.
	if strings.HasPrefix(value, "/") {
		if !isFilePath(value) {
			return target{}, invalid("it names no file")
		}
		return target{kind: kindPath, path: value}, nil
	}
	u, err := url.Parse(value)
	if err != nil {
		return target{}, invalid(err.Error())
	}
	t := target{path: u.Path}
	switch u.Scheme {
	case "fifo":
		t.kind = kindPath
	case "file":
		t.kind = kindFile
	case "binary", "binary-v2":
		t.kind = kindLogger
		t.strict = u.Scheme == "binary-v2"
	case "":
		return target{}, invalid("it is a relative path")
	default:
		return target{}, invalid(fmt.Sprintf("scheme %q is unknown", u.Scheme))
	}
	if u.Host != "" && u.Host != "localhost" {
		// The usual slip: file://var/log/x means the host "var".
		return target{}, invalid(fmt.Sprintf("%q is read as a host: write three slashes after the scheme", u.Host))
	}
	if !isFilePath(t.path) {
		return target{}, invalid("it names no file")
	}
	if t.kind == kindLogger {
		if t.args, err = queryArgs(u.RawQuery); err != nil {
			return target{}, invalid(err.Error())
		}
	}
	return t, nil
}

// isFilePath says whether path is absolute and can name something other than a directory.
func isFilePath(path string) bool {
	return filepath.IsAbs(path) && !strings.HasSuffix(path, "/") && !strings.Contains(path, "\x00")
}

// queryArgs turns the query of a logging program's URI into its arguments:
// every key followed by its first value, in the order of the URI.
func queryArgs(query string) ([]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	var args []string
	for pair := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if key, err = url.QueryUnescape(key); err != nil {
			return nil, err
		}
		if v, ok := values[key]; ok {
			args = append(args, key, v[0])
			delete(values, key)
		}
	}
	for _, arg := range args {
		if strings.Contains(arg, "\x00") {
			return nil, fmt.Errorf("argument %q holds a NUL", arg)
		}
	}
	return args, nil
}
