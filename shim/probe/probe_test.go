package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd-snap/snap/checkpoint/ready"
)

// program is the target of a test: this process.
type program struct {
	output *Output
	// ran counts commands; each fails before the last.
	ran, fails int
}

func (p *program) PID() int             { return os.Getpid() }
func (p *program) PIDs() ([]int, error) { return []int{os.Getpid()}, nil }
func (p *program) Output() *Output      { return p.output }

func (p *program) Dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

func (p *program) Run(context.Context, []string) error {
	if p.ran++; p.ran <= p.fails {
		return errors.New("it ended with status 1")
	}
	return nil
}

// serve answers each connection with the answers in turn, the last one for ever.
func serve(t *testing.T, answers ...string) (address string, requests *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	requests = &atomic.Int64{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := int(requests.Add(1))
			for s := bufio.NewScanner(c); s.Scan() && s.Text() != ""; {
				continue // to the end of the request
			}
			fmt.Fprint(c, answers[min(n, len(answers))-1])
			c.Close()
		}
	}()
	return l.Addr().String(), requests
}

func wait(t *testing.T, p *program, probe string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	q, err := ready.ParseProbe(probe)
	if err != nil {
		t.Fatal(err)
	}
	return Wait(ctx, p, q)
}

const yes, no = "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n\r\nlater"

func TestProbes(t *testing.T) {
	said, err := NewOutput("^ready in [0-9]+ ms$")
	if err != nil {
		t.Fatal(err)
	}
	said.Watch(0, []byte("starting\nrea"))
	said.Watch(1, []byte("ready in x\n"))
	said.Watch(0, []byte("dy in 12 ms"))
	file := filepath.Join(t.TempDir(), "ready")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good, asked := serve(t, no, "", yes)
	bad, _ := serve(t, no)
	odd, _ := serve(t, "SSH-2.0-OpenSSH\r\n")
	for probe, words := range map[string]string{
		"tcp://" + bad:             "",
		"tcp://127.0.0.1:1":        "connection refused",
		"http://" + good + "/x?y":  "",
		"http://" + bad + "/":      "503 Service Unavailable",
		"http://" + odd + "/":      "it is not HTTP/1",
		"exec:true":                "",
		"log:x":                    "", // whatever the expression: the output is watched from the beginning
		"file:" + file:             "",
		"file:" + file + "-not":    "no such file",
		"file:/proc/self/root/etc": "too many levels", // no way out of the root
		"delay:1ms":                "",
		"delay:1h":                 "deadline",
	} {
		err := wait(t, &program{output: said, fails: 2}, probe)
		if words == "" && err != nil || words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
			t.Errorf("%s: %v, want %q", probe, err, words)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times for three answers", n)
	}
	if err := wait(t, &program{fails: 1000}, "exec:false"); err == nil || !strings.Contains(err.Error(), "status 1") {
		t.Errorf("a command that fails: %v", err)
	}
	silent, err := NewOutput("never")
	if err != nil {
		t.Fatal(err)
	}
	silent.Watch(0, []byte("something else\n"))
	if err := wait(t, &program{output: silent}, "log:never"); !errors.Is(err, errNotPrinted) {
		t.Errorf("a line that never comes: %v", err)
	}
}

func TestListening(t *testing.T) {
	p := &program{}
	before := listening(p)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := listening(p); err != nil || before == nil {
		t.Errorf("%v without a socket, %v with one", before, err)
	}
}

func TestReadListening(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1B58 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1B58 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
garbage
`
	got := map[string]bool{}
	if err := readListening(strings.NewReader(table), got); err != nil || len(got) != 1 || !got["4711"] {
		t.Errorf("%v (%v)", got, err)
	}
}

func TestWarm(t *testing.T) {
	address, asked := serve(t, yes, no)
	if err := Warm(t.Context(), &program{}, ready.Warm{URL: "http://" + address + "/", Times: 20}); err != nil || asked.Load() != 20 {
		t.Errorf("%d requests (%v)", asked.Load(), err)
	}
	if err := Warm(t.Context(), &program{}, ready.Warm{URL: "http://127.0.0.1:1/", Times: 2}); err == nil || !strings.Contains(err.Error(), "request 1 of 2") {
		t.Errorf("nobody answers: %v", err)
	}
	if err := Warm(t.Context(), &program{}, ready.Warm{}); err != nil {
		t.Error(err)
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("a\nready\n"), []byte("b"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		o, err := NewOutput("^ready$")
		if err != nil {
			t.Fatal(err)
		}
		o.Watch(0, a)
		o.Watch(1, b)
		o.Watch(0, b)
		if len(o.lines[0]) > maxLine || len(o.lines[1]) > maxLine {
			t.Fatalf("lines of %d and %d bytes", len(o.lines[0]), len(o.lines[1]))
		}
	})
}

// TestTLS: a page over TLS is one, whoever signed for it.
func TestTLS(t *testing.T) {
	var answer atomic.Int64
	answer.Store(http.StatusServiceUnavailable)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(answer.Load())) }))
	defer server.Close()
	if err := wait(t, &program{}, server.URL+"/ready"); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("not ready: %v", err)
	}
	answer.Store(http.StatusNoContent)
	if err := wait(t, &program{}, server.URL+"/ready"); err != nil {
		t.Error(err)
	}
	plain, _ := serve(t, yes)
	if err := wait(t, &program{}, "https://"+plain); err == nil {
		t.Error("what speaks no TLS was taken for ready")
	}
}
