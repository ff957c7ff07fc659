// Package ready reads how a program is to be asked whether it is ready to serve, and
// how it is to be warmed up before it is captured.
//
// It is the grammar alone: what asks is shim/probe. It has no state and no locks.
package ready

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind is a way to ask.
type Kind string

// The ways to ask, by what stands before the colon.
const (
	// Listening is the zero value: the program is ready when it listens on a TCP
	// port, whichever that is.
	Listening Kind = ""
	// TCP connects to a port.
	TCP Kind = "tcp"
	// HTTP gets a page, over TLS if its URL says so; any status from 200 to 299 will do.
	HTTP Kind = "http"
	// Exec runs a command in the container; it must end with status 0.
	Exec Kind = "exec"
	// Log waits until a line of the program's output matches.
	Log Kind = "log"
	// File waits until there is something at a path in the container.
	File Kind = "file"
	// Delay waits.
	Delay Kind = "delay"
)

// Probe is a question. Probes may be compared.
type Probe struct {
	Kind Kind
	// Address is where TCP connects to, as net.Dial takes it.
	Address string
	// Text is the URL, the command, the regular expression or the path.
	Text string
	// After is how long Delay waits.
	After time.Duration
}

// ProbeGrammar says in words what ParseProbe takes.
const ProbeGrammar = "tcp://[HOST]:PORT, http(s)://[HOST]:PORT/PATH, exec:COMMAND, log:REGEXP, file:/PATH or delay:DURATION"

// loopback is the host that is meant where none is named.
const loopback = "127.0.0.1"

// maxText bounds every value, in bytes.
const maxText = 4096

// errUnknown is a value that begins like no probe.
var errUnknown = errors.New("it begins like none of them")

// ParseProbe reads a probe.
func ParseProbe(value string) (Probe, error) {
	if len(value) > maxText || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return Probe{}, fmt.Errorf("it is longer than %d bytes or no text", maxText)
	}
	kind, rest, ok := strings.Cut(value, ":")
	if !ok {
		return Probe{}, errUnknown
	}
	p := Probe{Kind: Kind(kind), Text: rest}
	if kind == schemeTLS {
		p.Kind = HTTP
	}
	switch p.Kind {
	case TCP:
		address, ok := strings.CutPrefix(rest, "//")
		if !ok {
			return Probe{}, errors.New("two slashes follow the colon")
		}
		var err error
		p.Address, err = parseAddress(address)
		p.Text = ""
		return orNone(p, err)
	case HTTP:
		var err error
		p.Text, err = parseURL(value)
		return orNone(p, err)
	case Exec:
		_, err := Words(rest)
		return orNone(p, err)
	case Log:
		return orNone(p, checkRegexp(rest))
	case File:
		if !strings.HasPrefix(rest, "/") {
			return Probe{}, errors.New("the path must begin with a slash")
		}
		return p, nil
	case Delay:
		var err error
		p.After, err = Duration(rest, 0)
		p.Text = ""
		return orNone(p, err)
	}
	return Probe{}, errUnknown
}

// schemeTLS is that of a page that is got over TLS.
const schemeTLS = "https"

func orNone(p Probe, err error) (Probe, error) {
	if err != nil {
		return Probe{}, err
	}
	return p, nil
}

// String writes the probe as ParseProbe reads it.
func (p Probe) String() string {
	switch p.Kind {
	case Listening:
		return "its first listening TCP socket"
	case TCP:
		return "tcp://" + p.Address
	case HTTP:
		return p.Text
	case Delay:
		return "delay:" + p.After.String()
	}
	return string(p.Kind) + ":" + p.Text
}

// Warm is what a program is asked for before it is captured; the zero value is
// nothing. Warms may be compared.
type Warm struct {
	URL   string
	Times int
}

// WarmGrammar says in words what ParseWarm takes.
const WarmGrammar = "http(s)://[HOST]:PORT/PATH, and *COUNT (1 to 100000) to ask for more than one page"

const maxTimes = 100_000

// ParseWarm reads what a program is to be warmed up with.
func ParseWarm(value string) (Warm, error) {
	w := Warm{URL: value, Times: 1}
	if at := strings.LastIndexByte(value, '*'); at >= 0 {
		n, err := strconv.Atoi(value[at+1:])
		if err != nil || n < 1 || n > maxTimes {
			return Warm{}, errors.New("the count is none")
		}
		w.URL, w.Times = value[:at], n
	}
	if len(w.URL) > maxText {
		return Warm{}, fmt.Errorf("it is longer than %d bytes", maxText)
	}
	var err error
	if w.URL, err = parseURL(w.URL); err != nil {
		return Warm{}, err
	}
	return w, nil
}

// String writes it as ParseWarm reads it.
func (w Warm) String() string { return fmt.Sprintf("%s*%d", w.URL, w.Times) }

// Duration reads a duration of Go's, as 90s or 1h30m, of at least least.
func Duration(value string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return 0, errors.New("the duration is none; they read as 500ms, 90s or 1h30m")
	case d < least || d <= 0:
		return 0, fmt.Errorf("the duration is too short, the shortest is %s", max(least, time.Nanosecond))
	case d > maxDuration:
		return 0, fmt.Errorf("the duration is too long, the longest is %s", maxDuration)
	}
	return d, nil
}

// maxDuration is a year: more is a mistake.
const maxDuration = 365 * 24 * time.Hour

// parseAddress reads [HOST]:PORT. A host is an address, not a name: what a name means
// depends on the container's resolver, which we are not.
func parseAddress(value string) (string, error) {
	u, err := url.Parse("tcp://" + value)
	if err != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.ContainsAny(value, "/?#@") {
		return "", errors.New("the address is no [HOST]:PORT")
	}
	return hostPort(u)
}

// parseURL reads http(s)://[HOST]:PORT/PATH and puts in what may be left out.
func parseURL(value string) (string, error) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != schemeTLS || u.Opaque != "" || u.User != nil {
		return "", errors.New("it is no URL of a page")
	}
	address, err := hostPort(u)
	if err != nil {
		return "", err
	}
	u.Host, u.Fragment, u.RawFragment = address, "", ""
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), nil
}

func checkRegexp(value string) error {
	if value == "" {
		return errors.New("an empty expression matches at once")
	}
	if _, err := regexp.Compile(value); err != nil {
		return fmt.Errorf("the regular expression is none: %w", err)
	}
	return nil
}
