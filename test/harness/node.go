package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/config"
)

// NoCRIU as Options.CRIU leaves the node without CRIU.
const NoCRIU = "none"

// Options says what a node is to be like. The zero value is a plain one.
type Options struct {
	// Parent is the directory in which the node's own is made; empty for the
	// system's temporary one. Paths of sockets lie below it: keep it short.
	Parent string
	// Stock adds runc and the stock shim, for comparisons.
	Stock bool
	// CRIU is the program that the node finds as criu: empty for the one on
	// PATH, NoCRIU for none.
	CRIU string
	// Namespace is the containerd namespace to work in, for programs that know
	// only one; empty for a unique one. Two such nodes at once share cgroups.
	Namespace string
	// Debug makes containerd and the shims log at level debug.
	Debug bool
	// Images are archives to import once it runs.
	Images []string
	// CRI makes the node one of Kubernetes; nil for a plain one.
	CRI *CRI
}

// Node is a containerd of our own.
type Node struct {
	// Dir holds everything of the node.
	Dir string
	// Namespace is the containerd namespace that the node works in.
	Namespace string
	// unique is a name that nothing else has: a process that is told it is the node's.
	unique string
	// CgroupParent is the cgroup of all its containers, a unique name below the
	// root. It is the namespace, except on a node with CRI, where pods have to ask for it.
	CgroupParent string
	// Address is the path of containerd's socket.
	Address string
	// Bin is the only directory on containerd's PATH, and so on the shims'.
	Bin string
	// StoreRoot is the directory of the checkpoint store.
	StoreRoot string
	// LogFile gets the log of containerd and of its shims.
	LogFile string

	tools   tools
	options Options
	cri     *CRI
	client  *client.Client
	cmd     *exec.Cmd
	// exited is closed when containerd has exited.
	exited chan struct{}
}

const (
	readyTimeout = 20 * time.Second
	pollInterval = 20 * time.Millisecond
)

// Start starts a node and waits, within ctx and 20 s, until it answers.
func Start(ctx context.Context, o Options) (_ *Node, retErr error) {
	if err := checkPrivate(); err != nil {
		return nil, fmt.Errorf("start a node outside of a private mount namespace (see tools/in-private-ns): %w", err)
	}
	t, err := findTools()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Parent, "snap-")
	if err == nil {
		// The root of a user namespace has to get at its root file system.
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		return nil, fmt.Errorf("make the node's directory: %w", err)
	}
	unique := "snap-" + strings.ToLower(rand.Text()[:10])
	n := &Node{
		Dir:          dir,
		Namespace:    unique,
		unique:       unique,
		CgroupParent: unique,
		Address:      filepath.Join(dir, "containerd.sock"),
		Bin:          filepath.Join(dir, "bin"),
		StoreRoot:    filepath.Join(dir, "store"),
		LogFile:      filepath.Join(dir, "containerd.log"),
		tools:        t,
		cri:          o.CRI,
		options:      o,
		exited:       make(chan struct{}),
	}
	if o.CRI != nil {
		n.Namespace = CRINamespace
	}
	if o.Namespace != "" {
		n.Namespace, n.CgroupParent = o.Namespace, o.Namespace
	}
	defer func() {
		if retErr != nil {
			_, err := n.Stop(context.WithoutCancel(ctx))
			retErr = errors.Join(retErr, err)
		}
	}()
	for _, d := range []string{n.Bin, filepath.Join(dir, "tmp"), n.socketDir()} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := t.fillPath(n.Bin, o); err != nil {
		return nil, err
	}
	if o.CRI != nil {
		if err := o.CRI.prepare(n); err != nil {
			return nil, err
		}
	}
	if err := n.writeConfig(); err != nil {
		return nil, err
	}
	if err := n.launch(o); err != nil {
		return nil, err
	}
	if err := n.waitReady(ctx); err != nil {
		return nil, err
	}
	for _, archive := range o.Images {
		if err := n.Import(ctx, archive); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *Node) path(elem ...string) string { return filepath.Join(append([]string{n.Dir}, elem...)...) }

func (n *Node) socketDir() string { return n.path("s") }

// SnapConfig is the path of the node's snap.toml.
func (n *Node) SnapConfig() string { return n.path("snap.toml") }

func (n *Node) configFile() string { return n.path("config.toml") }

func (n *Node) writeConfig() error {
	disabled := []string{"io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"}
	cri := ""
	if n.cri != nil {
		cri = n.cri.config(n)
	} else {
		disabled = append(disabled, "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri")
	}
	containerd := fmt.Sprintf(`version = 3
root = %[1]q
state = %[2]q
disabled_plugins = ["%[6]s"]
[grpc]
address = %[3]q
[ttrpc]
address = %[4]q
[plugins."io.containerd.shim.v1.manager"]
socket_dir = %[5]q
[plugins."io.containerd.monitor.container.v1.restart"]
interval = "500ms"
%[7]s`, n.path("root"), n.path("state"), n.Address, n.Address+".ttrpc", n.socketDir(), strings.Join(disabled, `", "`), cri)
	if err := os.WriteFile(n.configFile(), []byte(containerd), 0o600); err != nil {
		return err
	}
	return os.WriteFile(n.SnapConfig(), ShimConfig(n.StoreRoot), 0o600)
}

// EnvMemory names the mode in which memory comes back on a node where nothing else is said.
const EnvMemory = "SNAP_MEMORY"

// ShimConfig is the configuration of shims with a store below root.
func ShimConfig(root string) []byte {
	defaults := ""
	if mode, ok := os.LookupEnv(EnvMemory); ok {
		defaults = fmt.Sprintf("[defaults]\nmemory = %q\n", mode)
	}
	return fmt.Appendf(nil, "root = %q\n%s[capture]\nmin_interval = \"1s\"\n", root, defaults)
}

// envConfig tells shims and snapctl where their configuration is.
const envConfig = config.EnvFile

// environment is that of containerd, and so of the shims.
func (n *Node) environment() []string {
	env := []string{
		"PATH=" + n.Bin, envConfig + "=" + n.SnapConfig(), "TMPDIR=" + n.path("tmp"), "HOME=/root", "LANG=C.UTF-8",
	}
	// For shims that were built to measure what tests cover.
	if dir, ok := os.LookupEnv("GOCOVERDIR"); ok {
		env = append(env, "GOCOVERDIR="+dir)
	}
	return env
}

// launch starts containerd, which ends when we do.
func (n *Node) launch(o Options) error {
	path, err := n.tools.tool("containerd")
	if err != nil {
		return err
	}
	log, err := os.OpenFile(n.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	level := "info"
	if o.Debug {
		level = "debug"
	}
	cmd := exec.Command(path, "--config", n.configFile(), "--log-level", level) //nolint:noctx // it lives until Stop
	cmd.Env, cmd.Stdout, cmd.Stderr = n.environment(), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	started, exited := make(chan error, 1), n.exited
	go func() {
		// The signal comes when the thread that started it ends: it must not
		// end before containerd does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	n.cmd = cmd
	return nil
}

func (n *Node) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		if _, err := os.Stat(n.Address); err == nil {
			break
		}
		select {
		case <-n.exited:
			return fmt.Errorf("wait for containerd: it ended: %s", n.logTail())
		case <-ctx.Done():
			return fmt.Errorf("wait for containerd: %w: %s", ctx.Err(), n.logTail())
		case <-time.After(pollInterval):
		}
	}
	c, err := client.New(n.Address, client.WithDefaultNamespace(n.Namespace), client.WithTimeout(readyTimeout))
	if err != nil {
		return fmt.Errorf("connect to containerd: %w", err)
	}
	n.client = c
	if ok, err := c.IsServing(ctx); err != nil || !ok {
		return fmt.Errorf("wait for containerd: serving: %t: %w: %s", ok, err, n.logTail())
	}
	return nil
}

// logTail is the end of the log, for errors.
func (n *Node) logTail() string {
	const most = 2000
	log, err := os.ReadFile(n.LogFile)
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-most):])
}

// Client returns a client of the node's containerd, with its namespace as the
// default. It belongs to the node.
func (n *Node) Client() *client.Client { return n.client }

// PID is containerd's process id.
func (n *Node) PID() int { return n.cmd.Process.Pid }
