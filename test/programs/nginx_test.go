package programs

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/harness/run"
)

// TestNginx: a master of root's and workers of another user, with shared memory, an open
// file and an open connection. It reloads its configuration in a clone.
func TestNginx(t *testing.T) {
	t.Parallel()
	survives(t, want(t, "nginx", nil, "/usr/sbin/nginx", "-c", "/app/nginx.conf"), &nginx{})
}

// nginxWorkers is how many testdata/nginx.conf asks for.
const nginxWorkers = 3

type nginx struct {
	// open is a connection with a request before the capture, and more later.
	open   net.Conn
	reader *bufio.Reader
	// page is the digest of a file, and requests how many there were before the capture.
	page     string
	requests int
}

// nginxStatus is what stub_status says.
type nginxStatus struct{ active, requests int }

var nginxNumbers = regexp.MustCompile(`^Active connections: (\d+) \nserver accepts handled requests\n \d+ \d+ (\d+) `)

func (n *nginx) status(i *instance) (s nginxStatus, err error) {
	text, err := i.get("/status")
	if err != nil {
		return s, err
	}
	m := nginxNumbers.FindStringSubmatch(text)
	if m == nil {
		return s, fmt.Errorf("no status: %q", text)
	}
	_, err = fmt.Sscan(m[1]+" "+m[2], &s.active, &s.requests)
	return s, err
}

// fetch returns the digest of the page.
func (n *nginx) fetch(i *instance) (string, error) {
	page, err := i.get("/page")
	return fmt.Sprintf("%x", sha256.Sum256([]byte(page))), err
}

func (n *nginx) load(i *instance) error {
	i.MustExec("sh", "-c", "seq 100000 >/srv/page")
	err := eventually(i.T, patience, func() (err error) {
		n.page, err = n.fetch(i)
		return err
	})
	if err != nil {
		return err
	}
	if n.open, err = i.dial(run.Context(i.T), httpPort); err != nil {
		return err
	}
	i.T.Cleanup(func() { n.open.Close() })
	n.reader = bufio.NewReader(n.open)
	if err := n.goesOn(i); err != nil {
		return err
	}
	s, err := n.status(i)
	n.requests = s.requests
	return err
}

// goesOn: one more request on the connection.
func (n *nginx) goesOn(*instance) error {
	if err := n.open.SetDeadline(time.Now().Add(run.Deadline)); err != nil {
		return err
	}
	if _, err := io.WriteString(n.open, "GET /page HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(n.reader, nil)
	if err != nil {
		return fmt.Errorf("the connection that was open at the capture: %w", err)
	}
	defer answer.Body.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, answer.Body); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != n.page {
		return fmt.Errorf("the page has the digest %s, want %s", got, n.page)
	}
	return nil
}

func (n *nginx) holds(i *instance, names ...string) error {
	s, err := n.status(i)
	if err != nil {
		return err
	}
	// The master and its workers count in memory that they share.
	if s.requests <= n.requests || len(names) == 0 && s.requests != n.requests+1 {
		return fmt.Errorf("the status counts %d requests, before the capture there were %d", s.requests, n.requests)
	}
	page, err := n.fetch(i)
	if err != nil {
		return err
	}
	if page != n.page {
		return fmt.Errorf("the page has the digest %s, want %s", page, n.page)
	}
	added, err := i.get("/added")
	if len(names) == 0 {
		if err == nil || !strings.Contains(err.Error(), "404") {
			return fmt.Errorf("its configuration is not that of the capture: %q, %w", added, err)
		}
	} else if want := strings.Join(names, " "); err != nil || added != want {
		return fmt.Errorf("its configuration says %q (%w), want %q", added, err, want)
	}
	workers, err := n.workers(i)
	if err == nil && len(workers) != nginxWorkers {
		err = fmt.Errorf("it has the workers %v", workers)
	}
	if err != nil {
		return err
	}
	if len(names) == 1 && names[0] == "original" {
		return nil
	}
	// In a clone, the connection that was open is not.
	return eventually(i.T, run.Deadline, func() error {
		s, err := n.status(i)
		if err == nil && s.active != 1 {
			err = fmt.Errorf("%d connections are open, want the one that asks", s.active)
		}
		return err
	})
}

// workers are the processes of www-data, all of them children of the master.
func (n *nginx) workers(i *instance) ([]int, error) {
	pids, err := i.Task.Pids(run.Context(i.T))
	if err != nil {
		return nil, err
	}
	var workers []int
	for _, info := range pids {
		p, err := harness.ReadProcess(int(info.Pid))
		var status []byte
		if err == nil {
			status, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
		}
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		if p.PPID == i.Pid() && strings.Contains(string(status), "\nUid:\t33\t33\t33\t33\n") {
			workers = append(workers, p.PID)
		}
	}
	return workers, nil
}

// change reloads another configuration: new workers serve it, when the old ones have ended.
func (n *nginx) change(i *instance, name string) error {
	before, err := n.workers(i)
	if err != nil {
		return err
	}
	added, err := i.get("/added")
	if err != nil && !strings.Contains(err.Error(), "404") {
		return err
	}
	if err == nil {
		name = added + " " + name
	}
	if out, code := i.Exec("sh", "-c", fmt.Sprintf("echo 'location = /added { return 200 %q; }' >/etc/nginx/added.conf", name)); code != 0 {
		return fmt.Errorf("write a configuration: %s", out)
	}
	if out, code := i.Exec("/usr/sbin/nginx", "-c", "/app/nginx.conf", "-s", "reload"); code != 0 {
		return fmt.Errorf("reload: %s", out)
	}
	return eventually(i.T, run.Deadline, func() error {
		if err := i.gets("/added", name); err != nil {
			return err
		}
		now, err := n.workers(i)
		if err == nil && (len(now) != nginxWorkers || slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(before, pid) })) {
			err = fmt.Errorf("the workers were %v, and are %v", before, now)
		}
		return err
	})
}
