// Command server serves what servers_test.go asks for: data in memory, a ticker, a request
// that waits, and work for the collector and other threads.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// server is the program's data.
type server struct {
	// mu guards values and names.
	mu     sync.Mutex
	values map[string]string
	names  []string

	ticks   atomic.Int64
	release chan struct{}
	once    sync.Once
}

func main() {
	s := &server{values: map[string]string{}, release: make(chan struct{})}
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			s.ticks.Add(1)
		}
	}()
	for path, answer := range map[string]func(*http.Request) string{
		"/load": s.load, "/digest": s.digest, "/add": s.add, "/names": s.list, "/work": s.work,
		"/ticks":   func(*http.Request) string { return strconv.FormatInt(s.ticks.Load(), 10) },
		"/wait":    func(*http.Request) string { <-s.release; return "released" },
		"/release": func(*http.Request) string { s.once.Do(func() { close(s.release) }); return "done" },
	} {
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, answer(r)) })
	}
	err := (&http.Server{Addr: "0.0.0.0:8080", ReadHeaderTimeout: time.Minute}).ListenAndServe()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func (s *server) load(r *http.Request) string {
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil {
		return err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range n {
		s.values[fmt.Sprint("key ", i)] = strconv.Itoa(i * i)
	}
	return "loaded"
}

func (s *server) digest(*http.Request) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	hash := sha256.New()
	for i := range len(s.values) {
		fmt.Fprintln(hash, s.values[fmt.Sprint("key ", i)])
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func (s *server) add(r *http.Request) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, r.FormValue("name"))
	return "added"
}

func (s *server) list(*http.Request) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.names, " ")
}

// work makes garbage on several goroutines, collects it, and looks at the data again.
func (s *server) work(r *http.Request) string {
	var wg sync.WaitGroup
	var sum atomic.Int64
	for range 8 {
		wg.Go(func() {
			var garbage []string
			for i := range 20000 {
				garbage = append(garbage, strconv.Itoa(i))
			}
			sum.Add(int64(len(garbage)))
		})
	}
	wg.Wait()
	runtime.GC()
	if n := sum.Load(); n != 8*20000 {
		return fmt.Sprint("the goroutines counted ", n)
	}
	return s.digest(r)
}
