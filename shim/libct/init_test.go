package libct

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inner marks the process that runs the tests.
const inner = "SNAP_TEST_PRIVATE_MOUNTS"

// TestMain is a container's init where libcontainer executes it as one. Else it
// runs the tests with mounts of their own, so that whatever a container or CRIU
// mounts, or forgets to unmount, ends with them.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == InitArg {
		Init()
	}
	if os.Getenv(inner) == "" {
		os.Exit(private())
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// private runs the tests again in a mount namespace.
func private() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inner+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace of their own (this needs root):", err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// prepare gives CRIU a place to keep what it learns of the kernel, and finds it.
func prepare() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	path := os.Getenv("PATH")
	if tools := os.Getenv("SNAP_TOOLS"); tools != "" {
		path += ":" + filepath.Join(tools, "bin")
	}
	if err := os.Setenv("PATH", path+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	if _, err := exec.LookPath("criu"); err != nil {
		return fmt.Errorf("these tests need CRIU, in PATH or in $SNAP_TOOLS/bin (`make setup` installs one): %w", err)
	}
	out, err := exec.Command("criu", "check").CombinedOutput()
	if err != nil {
		return fmt.Errorf("CRIU does not work on this kernel: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
