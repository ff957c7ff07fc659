package libct

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/shim/netns"
)

// Namespaces are the network and UTS namespaces of a task that is to be
// restored, made before it. Made by us rather than by CRIU, they are right
// from the task's first instruction (hostname, loopback, sysctls), and they
// outlive a failed restore, so that what was attached to the network namespace
// meanwhile (by CNI, say) is there for the boot that follows.
type Namespaces struct {
	net, uts *os.File
	// Hostname and Domainname are those of the UTS namespace that the task is
	// restored into: the one made for it, or a pod's.
	Hostname, Domainname string
}

// Hostname is the name that the container's processes see when it starts.
func Hostname(s *specs.Spec) (string, error) {
	path := ""
	for _, ns := range s.Linux.Namespaces {
		if ns.Type != specs.UTSNamespace {
			continue
		}
		if path = ns.Path; path == "" && s.Hostname != "" {
			return s.Hostname, nil
		}
	}
	n := &Namespaces{}
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good, as in NewNamespaces
		errc <- n.readNames(path)
	}()
	if err := <-errc; err != nil {
		return "", fmt.Errorf("read the hostname: %w", err)
	}
	return n.Hostname, nil
}

// NewNamespaces makes those of the two that the spec asks to be new.
func NewNamespaces(s *specs.Spec) (*Namespaces, error) {
	var flags int
	var utsPath, netPath string
	for _, ns := range s.Linux.Namespaces {
		switch {
		case ns.Path != "" && ns.Type == specs.UTSNamespace:
			utsPath = ns.Path
		case ns.Path != "" && ns.Type == specs.NetworkNamespace:
			netPath = ns.Path
		case ns.Path != "":
		case ns.Type == specs.NetworkNamespace:
			flags |= unix.CLONE_NEWNET
		case ns.Type == specs.UTSNamespace:
			flags |= unix.CLONE_NEWUTS
		}
	}
	n := &Namespaces{}
	errc := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, and nobody
		// else finds himself in its namespaces.
		runtime.LockOSThread()
		err := n.unshare(flags, s)
		if err == nil {
			err = setSysctls(s, flags, netPath)
		}
		if err == nil {
			err = n.readNames(utsPath)
		}
		errc <- err
	}()
	if err := <-errc; err != nil {
		n.Close()
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	return n, nil
}

func (n *Namespaces) unshare(flags int, s *specs.Spec) (err error) {
	if flags == 0 {
		return nil
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if flags&unix.CLONE_NEWUTS != 0 {
		if n.uts, err = os.Open("/proc/thread-self/ns/uts"); err != nil {
			return err
		}
		if s.Hostname != "" {
			if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
				return fmt.Errorf("set hostname %q: %w", s.Hostname, err)
			}
		}
		if s.Domainname != "" {
			if err := unix.Setdomainname([]byte(s.Domainname)); err != nil {
				return fmt.Errorf("set domainname %q: %w", s.Domainname, err)
			}
		}
	}
	if flags&unix.CLONE_NEWNET != 0 {
		if n.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bring up the loopback interface: %w", err)
		}
	}
	return nil
}

// setSysctls sets those of the calling thread's network and UTS namespaces that are in
// flags, and those of the network namespace at netPath if there is one, as libcontainer
// does at a boot and CRIU does not. Those of the IPC namespace are in the images.
func setSysctls(s *specs.Spec, flags int, netPath string) error {
	entered := netPath == ""
	for key, value := range s.Linux.Sysctl {
		path := sysctlPath(key)
		ofNetwork := strings.HasPrefix(path, "net/") && (flags&unix.CLONE_NEWNET != 0 || netPath != "")
		ofUTS := path == "kernel/domainname" && flags&unix.CLONE_NEWUTS != 0
		if !ofNetwork && !ofUTS {
			continue
		}
		// "net/../kernel/core_pattern" is the node's.
		if filepath.Clean(path) != path {
			return fmt.Errorf("set sysctl %s: it is not the plain name of one", key)
		}
		if ofNetwork && !entered {
			if err := enterOther(netPath); err != nil {
				return fmt.Errorf("set sysctl %s: %w", key, err)
			}
			entered = true
		}
		if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl %s: %w", key, err)
		}
	}
	return nil
}

// enterOther moves the calling thread into the network namespace at path, unless that is
// the one that we are in: the node's, whose settings are no container's to change.
// libcontainer refuses that, too, but only when it looks at the whole configuration.
func enterOther(path string) error {
	var there, here unix.Stat_t
	if err := errors.Join(unix.Stat(path, &there), unix.Stat("/proc/self/ns/net", &here)); err != nil {
		return fmt.Errorf("look at network namespace %s: %w", path, err)
	}
	if there.Dev == here.Dev && there.Ino == here.Ino {
		return fmt.Errorf("%s is the network namespace of the node: %w", path, errdefs.ErrInvalidArgument)
	}
	if err := enter(path, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// enter moves the calling thread into the namespace of a kind at path.
func enter(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), kind)
}

// readNames notes the names of the UTS namespace at path, or of the calling
// thread's for an empty one.
func (n *Namespaces) readNames(path string) error {
	if path != "" {
		if err := enter(path, unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("enter UTS namespace %s: %w", path, err)
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	n.Hostname = unix.ByteSliceToString(u.Nodename[:])
	n.Domainname = unix.ByteSliceToString(u.Domainname[:])
	return nil
}

// sysctlPath turns a sysctl's name to its path below /proc/sys. A name with a
// slash is already a path whose parts may hold dots (sysctl.d(5)).
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	return strings.NewReplacer(".", "/", "/", ".").Replace(key)
}

// loopbackUp sets IFF_UP on lo in the calling thread's network namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(req))); errno != 0 {
		return errno
	}
	return nil
}

// Join makes a container of this spec join the namespaces. They must stay open
// as long as the container lives: processes exec'd into it find them by path.
func (n *Namespaces) Join(s *Spec) {
	if n.net != nil {
		s.NetNS = nsPath(n.net)
	}
	if n.uts != nil {
		s.UTSNS = nsPath(n.uts)
	}
}

// Interfaces returns how many network interfaces the network namespace has; 0 if none was made.
func (n *Namespaces) Interfaces() (int, error) {
	if n == nil || n.net == nil {
		return 0, nil
	}
	var found []net.Interface
	err := netns.Do(nsPath(n.net), func() (err error) {
		found, err = net.Interfaces()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("list network interfaces: %w", err)
	}
	return len(found), nil
}

// Close lets go of the namespaces; the kernel removes them with their last process.
func (n *Namespaces) Close() error {
	var errs []error
	for _, f := range []*os.File{n.net, n.uts} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	n.net, n.uts = nil, nil
	return errors.Join(errs...)
}

func nsPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }
