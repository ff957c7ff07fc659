package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// maxBody is how much of an answer is read before the connection is closed, maxStatusLine how
// long its first line may be, in bytes.
const (
	maxBody       = 64 << 20
	maxStatusLine = 4096
)

// statusError is an answer that says no.
type statusError struct{ url, status string }

func (e statusError) Error() string { return fmt.Sprintf("GET %s: %s", e.url, e.status) }

// get asks for a page, each time on a connection of its own: one that was kept would be
// open when the program is captured. A redirect is not followed, as it may lead
// anywhere.
//
// It speaks HTTP by itself: a request that asks for the connection's end needs nothing of
// net/http, which every container's shim would carry.
func get(ctx context.Context, t Target, page string) error {
	u, err := url.Parse(page)
	if err != nil {
		return err
	}
	tcp, err := t.Dial(ctx, u.Host)
	if err != nil {
		return err
	}
	defer tcp.Close()
	if d, ok := ctx.Deadline(); ok {
		if err := tcp.SetDeadline(d); err != nil {
			return err
		}
	}
	// What ends ctx earlier ends the conversation.
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	defer stop()
	conn := tcp
	if u.Scheme == "https" {
		// As the kubelet's probes, it does not ask who answers: it is asked whether
		// somebody does, and tells him nothing.
		conn = tls.Client(tcp, &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname()}) //nolint:gosec // see above
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: snap-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n", u.RequestURI(), u.Host); err != nil {
		return err
	}
	answer := bufio.NewReaderSize(conn, maxStatusLine)
	line, err := answer.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", page, err)
	}
	ok, status, err := readStatus(string(line))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", page, err)
	}
	// To its end: a program that is cut off in its answer has not done all of its work.
	// One that keeps the connection open has answered, too.
	_, _ = io.Copy(io.Discard, io.LimitReader(answer, maxBody))
	if !ok {
		return statusError{page, status}
	}
	return nil
}

// readStatus reads the first line of an answer: ok says whether the status is one of
// success.
func readStatus(line string) (ok bool, status string, err error) {
	proto, status, found := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	code, _, _ := strings.Cut(status, " ")
	n, cerr := strconv.Atoi(code)
	if !found || !strings.HasPrefix(proto, "HTTP/1.") || cerr != nil || n < 100 || n > 999 {
		return false, "", errors.New("it is not HTTP/1")
	}
	return n >= 200 && n <= 299, status, nil
}
