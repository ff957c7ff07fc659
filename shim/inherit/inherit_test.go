package inherit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// open makes a file with a number that can be lent.
func open(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "lent"))
	if err != nil {
		t.Fatal(err)
	}
	if f, err = Raise(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if f.Fd() < lowest {
		t.Fatalf("descriptor %d", f.Fd())
	}
	return f
}

// sees says whether a child that is started now has f.
func sees(t *testing.T, f *os.File) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "readlink", fmt.Sprintf("/proc/self/fd/%d", f.Fd())).Output()
	return err == nil && strings.TrimSpace(string(out)) == f.Name()
}

func TestLend(t *testing.T) {
	f := open(t)
	if sees(t, f) {
		t.Error("a child has it that was not lent")
	}
	takeBack, err := Lend(t.Context(), []*os.File{f})
	if err != nil {
		t.Fatal(err)
	}
	if !sees(t, f) {
		t.Error("the child has it not")
	}
	takeBack()
	takeBack()
	if sees(t, f) {
		t.Error("a child has it that was taken back")
	}
}

// TestGuard: those who start processes meanwhile never give it away.
func TestGuard(t *testing.T) {
	f := open(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				done := Guard()
				if sees(t, f) {
					t.Error("a guarded child has it")
				}
				done()
			}
		})
	}
	for range 50 {
		takeBack, err := Lend(t.Context(), []*os.File{f})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		takeBack()
	}
	close(stop)
	wg.Wait()
}

// TestPatience: a lender does not wait for ever, and then keeps nobody waiting.
func TestPatience(t *testing.T) {
	f := open(t)
	done := Guard()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Lend(ctx, []*os.File{f}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	Guard()()
	done()
	f.Close()
	if _, err := Lend(t.Context(), []*os.File{f}); err == nil {
		t.Error("a closed file was lent")
	}
	Guard()()
	// Nothing to lend: others may go on.
	free, err := Lend(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	Guard()()
	free()
}
