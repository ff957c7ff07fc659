package rootfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// inner marks the process that runs the tests.
const inner = "SNAP_TEST_PRIVATE_MOUNTS"

// TestMain runs the tests with mounts of their own: whatever a test mounts, or
// forgets to unmount, ends with it.
func TestMain(m *testing.M) {
	if os.Getenv(inner) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inner+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace of their own (this needs root):", err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}
