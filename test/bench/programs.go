package main

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
	"github.com/containerd-snap/snap/test/search"
)

//go:embed programs
var sources embed.FS

// program is what is started.
type program struct {
	// name is that in the results, title that for people.
	name, title string
	image       string
	// make writes the image's archive to a file in dir.
	make func(ctx context.Context, dir string) (string, error)
	// args are the command in the place of the image's; none for that.
	args []string
	// answer asks the program once.
	answer func(ctx context.Context, pid int) error
	// load gives a booted program its data, where the boot does not; it may be nil. It
	// fails as long as the program does not listen.
	load func(ctx context.Context, pid int) error
}

// programs are those of the part restore.
func programs() []*program {
	return []*program{searchProgram(), nodeProgram(), railsProgram(), javaProgram(), redisProgram(), smallProgram()}
}

// smallProgram is the one that is measured where it must be quick.
func smallProgram() *program {
	p := touchProgram(smallSize)
	p.name, p.title = "c", "C: "+p.title+" of memory, nothing else"
	return p
}

func programNames() []string {
	var all []string
	for _, p := range programs() {
		all = append(all, p.name)
	}
	return all
}

func searchProgram() *program {
	return &program{
		name: "python", title: "Python: search server, NumPy and pandas", image: search.Image, make: search.MakeImage,
		answer: func(ctx context.Context, pid int) error {
			_, err := search.Connect(pid, measure.Impatient).Ask(ctx)
			return err
		},
	}
}

func nodeProgram() *program {
	return httpProgram("node", "Node.js: search server", "node", "/usr/bin/node", "server.js")
}

func railsProgram() *program {
	return httpProgram("rails", "Ruby: Rails and puma, 5 threads", "rails",
		"/usr/bin/ruby", "/usr/bin/puma", "--quiet", "--bind", "tcp://0.0.0.0:8000", "--threads", "5:5", "config.ru")
}

func javaProgram() *program {
	return httpProgram("java", "JVM: search server, compiled at the start", "java", "/usr/bin/java", "-Xmx512m", "Server.java")
}

// httpProgram is one whose sources are in programs/NAME and that answers at port 8000.
func httpProgram(name, title, from string, command ...string) *program {
	image := "localhost/snap/bench-" + name + ":1"
	return &program{
		name: name, title: title, image: image, answer: get("/", measure.Impatient),
		make: func(ctx context.Context, dir string) (string, error) {
			tree := filepath.Join(dir, "tree")
			root, err := fs.Sub(sources, "programs/"+name)
			if err == nil {
				err = os.CopyFS(tree, root)
			}
			if err != nil {
				return "", fmt.Errorf("unpack the program %s: %w", name, err)
			}
			return measure.MakeImage(ctx, measure.Recipe{Name: image, From: from, Add: tree, WorkDir: "/srv", Command: command}, filepath.Join(dir, name+".tar"))
		},
	}
}

// get asks for a page. An attempt to connect ends after patience.
func get(path string, patience time.Duration) func(context.Context, int) error {
	return func(ctx context.Context, pid int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+search.Address+path, http.NoBody)
		if err != nil {
			return err
		}
		res, err := measure.Client(pid, search.Address, patience).Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: status %s", path, res.Status)
		}
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
}

// Redis holds a million values of a thousand bytes, which with its own needs is 1.1 GB.
const (
	redisKeys  = 1_000_000
	redisValue = 1000
)

func redisProgram() *program {
	const image = "localhost/snap/redis:1"
	return &program{
		name: "redis", title: "Redis with 1 GB of data", image: image,
		make: func(context.Context, string) (string, error) { return harness.Image("redis") },
		args: []string{"/usr/bin/redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--enable-debug-command", "yes"},
		answer: func(ctx context.Context, pid int) error {
			line, err := redis(ctx, pid, fmt.Sprintf("STRLEN key:%d", redisKeys-1))
			if err == nil && line != fmt.Sprintf(":%d", redisValue) {
				err = fmt.Errorf("its last key has the length %q", line)
			}
			return err
		},
		load: func(ctx context.Context, pid int) error {
			_, err := redis(ctx, pid, fmt.Sprintf("DEBUG POPULATE %d key %d", redisKeys, redisValue))
			return err
		},
	}
}

// redis gives a command and returns the first line of the answer.
func redis(ctx context.Context, pid int, command string) (string, error) {
	dialing, cancel := context.WithTimeout(ctx, measure.Impatient)
	defer cancel()
	conn, err := harness.DialIn(dialing, pid, "127.0.0.1:6379")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(measure.Patient)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprint(conn, command+"\r\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if strings.HasPrefix(line, "-") {
		err = errors.New(strings.TrimSpace(line))
	}
	return strings.TrimSpace(line), err
}

const touchImage = "localhost/snap/bench-touch:1"

// touchProgram holds so many MiB, and touches a part of them when it is asked to.
func touchProgram(mib int) *program {
	return &program{
		name: sizeName(mib), title: size(mib), image: touchImage, make: makeTouch, answer: get("/0", measure.Impatient),
		args: []string{"/bin/touch-pages", strconv.Itoa(mib)},
	}
}

// makeTouch compiles the program and puts it, with the libraries that it is linked with, over busybox.
func makeTouch(ctx context.Context, dir string) (string, error) {
	source, err := sources.ReadFile("programs/touch/touch.c")
	if err != nil {
		return "", err
	}
	tree := filepath.Join(dir, "tree")
	file, binary := filepath.Join(dir, "touch.c"), filepath.Join(tree, "bin", "touch-pages")
	if err := errors.Join(os.MkdirAll(filepath.Dir(binary), 0o755), os.WriteFile(file, source, 0o600)); err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", binary, file).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile touch.c: %w: %s", err, out)
	}
	out, err := exec.CommandContext(ctx, "ldd", binary).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ldd touch-pages: %w: %s", err, out)
	}
	for _, path := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
		if strings.HasPrefix(path, tree) {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		to := filepath.Join(tree, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755)); err != nil {
			return "", err
		}
	}
	return measure.MakeImage(ctx, measure.Recipe{Name: touchImage, From: "busybox", Add: tree, Command: []string{"/bin/touch-pages", "64"}}, filepath.Join(dir, "touch.tar"))
}
