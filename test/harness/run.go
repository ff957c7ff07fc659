package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// waitDelay bounds how long a command whose context has ended may hold its output open.
const waitDelay = 2 * time.Second

// Output is what a command printed.
type Output struct{ Stdout, Stderr string }

// Ctr runs ctr against the node, in its namespace. The error of a command that
// failed wraps *exec.ExitError and holds what it printed to stderr.
func (n *Node) Ctr(ctx context.Context, args ...string) (Output, error) {
	path, err := n.tools.tool("ctr")
	if err != nil {
		return Output{}, err
	}
	return n.run(ctx, path, append([]string{"--address", n.Address, "--namespace", n.Namespace}, args...))
}

// Snapctl runs snapctl against the node's store.
func (n *Node) Snapctl(ctx context.Context, args ...string) (Output, error) {
	path, err := n.tools.ours(snapctlProgram)
	if err != nil {
		return Output{}, err
	}
	return n.run(ctx, path, args)
}

// Script is a command, not started yet, that uses ctr and snapctl as somebody would whose
// containerd the node's is. It has its environment, with what more is given.
func (n *Node) Script(ctx context.Context, path string, env ...string) *exec.Cmd {
	search := []string{filepath.Join(n.tools.tools, "bin"), n.tools.bin, os.Getenv("PATH")}
	cmd := n.command(ctx, path)
	cmd.Env = append(append(cmd.Env, "PATH="+strings.Join(search, string(os.PathListSeparator))), env...)
	return cmd
}

// command is one with the node's environment and configuration.
func (n *Node) command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = waitDelay
	// Ctrl-C at a terminal is for the user of the node, who lets a command end
	// before cleaning up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(n.environment(), "CONTAINERD_ADDRESS="+n.Address, "CONTAINERD_NAMESPACE="+n.Namespace)
	return cmd
}

// run runs a command with the node's environment and configuration.
func (n *Node) run(ctx context.Context, path string, args []string) (Output, error) {
	cmd := n.command(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := Output{Stdout: stdout.String(), Stderr: stderr.String()}
	if err != nil {
		return out, fmt.Errorf("%s %s: %w: %s", cmd.Args[0], strings.Join(args, " "), err, strings.TrimSpace(out.Stderr))
	}
	return out, nil
}

// Import loads an image archive.
func (n *Node) Import(ctx context.Context, archive string) error {
	if _, err := n.Ctr(ctx, "images", "import", "--snapshotter", "overlayfs", archive); err != nil {
		return fmt.Errorf("import %s: %w", archive, err)
	}
	return nil
}

// Log returns the log of containerd and its shims so far.
func (n *Node) Log() (string, error) {
	log, err := os.ReadFile(n.LogFile)
	return string(log), err
}
