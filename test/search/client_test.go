package search

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// replies answers requests in the place of a program.
type replies func(n int) (status int, body string, err error)

func (r replies) program() *Program {
	n := 0
	return &Program{HTTP: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		n++
		status, body, err := r(n)
		if err != nil {
			return nil, err
		}
		return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(body))}, nil
	})}}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func counting(n int) (int, string, error) {
	return http.StatusOK, fmt.Sprintf(`{"boot_id": "b", "counter": %d, "answer": {"matches": 1}}`, n), nil
}

func TestAsk(t *testing.T) {
	refused := errors.New("refused")
	for name, tc := range map[string]struct {
		replies replies
		want    string
	}{
		"answers":   {counting, ""},
		"not ready": {func(int) (int, string, error) { return http.StatusServiceUnavailable, "", nil }, "status"},
		"nobody":    {func(int) (int, string, error) { return 0, "", refused }, "refused"},
		"nonsense":  {func(int) (int, string, error) { return http.StatusOK, "<html>", nil }, `"<html>"`},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := tc.replies.program().Ask(t.Context())
			switch {
			case tc.want == "" && (err != nil || a.BootID != "b" || a.Counter != 1 || string(a.Result) != `{"matches": 1}`):
				t.Errorf("answer %+v, error %v", a, err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}
