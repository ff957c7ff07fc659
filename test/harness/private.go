package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// enteredEnv marks a process that EnterPrivate has replaced once already.
const enteredEnv = "SNAP_IN_PRIVATE_NS"

// EnterPrivate makes sure that the process lives in a mount namespace of its
// own with a tmpfs on /run. If it does not, the process is replaced by itself,
// run through tools/in-private-ns, which is looked for above the working
// directory. Call it before anything else: it then does not return.
func EnterPrivate() error {
	why := checkPrivate()
	if why == nil {
		return nil
	}
	if os.Getenv(enteredEnv) != "" {
		return fmt.Errorf("enter a private mount namespace: tools/in-private-ns ran, and still: %w", why)
	}
	wrapper, err := findAbove(filepath.Join("tools", "in-private-ns"))
	if err != nil {
		return fmt.Errorf("enter a private mount namespace, because %w: %w", why, err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("enter a private mount namespace: %w", err)
	}
	args := append([]string{wrapper, self}, os.Args[1:]...)
	return fmt.Errorf("run %s: %w", wrapper, unix.Exec(wrapper, args, append(os.Environ(), enteredEnv+"=1")))
}

// networkEnv marks a process that EnterPrivateNetwork has replaced by itself,
// with its process id.
const networkEnv = "SNAP_IN_PRIVATE_NETWORK"

// EnterPrivateNetwork is EnterPrivate, and also makes sure that the process has
// a network namespace of its own, with a loopback interface and nothing else:
// what a node's network plugins make and what its programs listen on stays there.
func EnterPrivateNetwork() error {
	if err := EnterPrivate(); err != nil {
		return err
	}
	self := strconv.Itoa(os.Getpid())
	if os.Getenv(networkEnv) == self {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("look for the loopback interface: %w", err)
		}
		return netlink.LinkSetUp(lo)
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return fmt.Errorf("enter a private network namespace: %w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("enter a private network namespace: %w", err)
	}
	args := append([]string{unshare, "--net", program}, os.Args[1:]...)
	return fmt.Errorf("run %s: %w", unshare, unix.Exec(unshare, args, append(os.Environ(), networkEnv+"="+self)))
}

// checkPrivate returns what is missing; nil if nothing is.
func checkPrivate() error {
	if os.Geteuid() != 0 {
		return errors.New("this needs root")
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	// A container's root may not be allowed to look at process 1; /run decides then.
	first, err := os.Readlink("/proc/1/ns/mnt")
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	if ours == first {
		return errors.New("the mount namespace is the host's")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/run", &fs); err != nil {
		return fmt.Errorf("look at /run: %w", err)
	}
	if fs.Type != unix.TMPFS_MAGIC {
		return errors.New("/run is not a tmpfs")
	}
	return nil
}

// findAbove looks for a path in the working directory and all above it.
func findAbove(rel string) (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, rel)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("there is no %s in %s or above it; run this from the repository", rel, wd)
		}
	}
}
