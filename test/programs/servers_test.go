package programs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/containerd-snap/snap/test/harness/run"
)

// TestNode: timers, a worker thread, V8's collector.
func TestNode(t *testing.T) {
	t.Parallel()
	survives(t, want(t, "node", nil, "/usr/bin/node", "--expose-gc", "/app/server.js"), &server{})
}

// TestJava: a scheduled executor, fork-join threads, G1.
func TestJava(t *testing.T) {
	t.Parallel()
	survives(t, want(t, "java", nil, "/usr/bin/java", "-XX:+UseG1GC", "-Xmx128m", "/app/Server.java"), &server{})
}

// TestGo: a ticker, goroutines, the collector.
func TestGo(t *testing.T) {
	t.Parallel()
	// Go makes MPTCP sockets otherwise, which CRIU cannot save.
	env := []oci.SpecOpts{oci.WithEnv([]string{"GODEBUG=multipathtcp=0"})}
	survives(t, want(t, "busybox", env, "/app/server"), &server{})
}

// pairs is how many a server holds.
const pairs = 20000

// server speaks to those of the servers that are made for this test: they answer alike.
type server struct {
	// waits is a connection whose request is not answered before the capture.
	waits net.Conn
	// ticks is what the timer had counted at last before the capture.
	ticks int
}

// digest is what the data of a whole server come to.
func digest() string {
	hash := sha256.New()
	for i := range pairs {
		fmt.Fprintln(hash, i*i)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func (s *server) load(i *instance) error {
	if err := eventually(i.T, patience, func() error { return i.gets("/names", "") }); err != nil {
		return err
	}
	if err := i.gets(fmt.Sprint("/load?n=", pairs), "loaded"); err != nil {
		return err
	}
	if err := i.gets("/work", digest()); err != nil {
		return err
	}
	var err error
	if s.waits, err = i.dial(run.Context(i.T), httpPort); err != nil {
		return err
	}
	i.T.Cleanup(func() { s.waits.Close() })
	if _, err := io.WriteString(s.waits, "GET /wait HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return err
	}
	s.ticks, err = ticks(i)
	return err
}

// goesOn: who waits for an answer gets it.
func (s *server) goesOn(i *instance) error {
	if err := i.gets("/release", "done"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(i.T.Context(), run.Deadline)
	defer cancel()
	if d, ok := ctx.Deadline(); ok {
		if err := s.waits.SetReadDeadline(d); err != nil {
			return err
		}
	}
	answer, err := http.ReadResponse(bufio.NewReader(s.waits), nil)
	if err != nil {
		return fmt.Errorf("the request that was open at the capture: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && string(body) != "released" {
		err = fmt.Errorf("the request that was open at the capture was answered %q", body)
	}
	return err
}

func (s *server) holds(i *instance, names ...string) error {
	first, err := ticks(i)
	if err != nil {
		return err
	}
	if first < s.ticks {
		return fmt.Errorf("the timer counts from %d, it had counted to %d", first, s.ticks)
	}
	return errors.Join(
		i.gets("/digest", digest()),
		i.gets("/names", strings.Join(names, " ")),
		eventually(i.T, run.Deadline, func() error {
			now, err := ticks(i)
			if err == nil && now <= first {
				err = fmt.Errorf("the timer stands at %d", now)
			}
			return err
		}))
}

// change also lets go who waited at the capture, whose connection a clone has lost.
func (s *server) change(i *instance, name string) error {
	return errors.Join(i.gets("/release", "done"), i.gets("/work", digest()), i.gets("/add?name="+name, "added"))
}

func ticks(i *instance) (int, error) {
	got, err := i.get("/ticks")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(got)
}
