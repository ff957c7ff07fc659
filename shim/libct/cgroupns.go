package libct

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// holder is the name under which our binary, executed again, makes a cgroup
// namespace (cgroupns_c.go).
const holder = "snap-cgroupns"

// holderTimeout bounds what the holder does before it waits.
const holderTimeout = 10 * time.Second

// cgroupNamespace is a cgroup namespace whose root is a container's cgroup. CRIU, told
// to leave cgroups alone, restores processes into its own namespace, so it must be
// started in the container's (runc issue 5417). Nil stands for the namespace of all.
type cgroupNamespace struct {
	ns *os.File
	// leave ends the process that holds the cgroup.
	leave func()
}

// newCgroupNamespace makes the cgroup of cm, and the namespace. Only a process inside a cgroup
// can make a namespace rooted there. It stays in the cgroup until Leave is
// called, because systemd removes a scope without processes.
func newCgroupNamespace(cm cgroups.Manager) (_ *cgroupNamespace, retErr error) {
	defer func() {
		if retErr != nil {
			retErr = fmt.Errorf("make a cgroup namespace: %w", retErr)
		}
	}()
	theirs, ours, err := pipePair()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{holder}, Env: []string{}, Stdin: theirs[0], Stdout: theirs[1]}
	err = cmd.Start()
	theirs[0].Close()
	theirs[1].Close()
	if err != nil {
		ours[0].Close()
		ours[1].Close()
		return nil, err
	}
	unclaim := Claim(cmd.Process.Pid)
	n := &cgroupNamespace{leave: sync.OnceFunc(func() {
		ours[0].Close()
		ours[1].Close() // which ends it
		_ = cmd.Wait()
		unclaim()
	})}
	defer func() {
		if retErr != nil {
			n.Leave()
		}
	}()
	if err := cm.Apply(cmd.Process.Pid); err != nil {
		return nil, err
	}
	b := []byte{0}
	if _, err := ours[1].Write(b); err != nil {
		return nil, err
	}
	if err := ours[0].SetReadDeadline(time.Now().Add(holderTimeout)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(ours[0], b); err != nil {
		return nil, err
	}
	n.ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/cgroup", cmd.Process.Pid))
	return n, err
}

// pipePair returns two pipes: their ends for a process's standard input and output, and
// ours to read from and write to it.
func pipePair() (theirs, ours [2]*os.File, err error) {
	if theirs[0], ours[1], err = os.Pipe(); err != nil {
		return theirs, ours, err
	}
	if ours[0], theirs[1], err = os.Pipe(); err != nil {
		theirs[0].Close()
		ours[1].Close()
	}
	return theirs, ours, err
}

// Leave is to be called when CRIU has come into the cgroup, or will not come: the
// cgroup could not be removed with somebody in it. It may be called more than once.
func (n *cgroupNamespace) Leave() {
	if n != nil {
		n.leave()
	}
}

// restore runs c.Restore so that CRIU is started in the namespace. It is for a thread that ends
// afterwards.
func (n *cgroupNamespace) restore(c *libcontainer.Container, p *libcontainer.Process, opts *libcontainer.CriuOpts) error {
	if n == nil {
		return c.Restore(p, opts)
	}
	defer n.Leave()
	defer n.ns.Close()
	if err := manageFromOutside(c); err != nil {
		return err
	}
	if err := unix.Setns(int(n.ns.Fd()), unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("enter the cgroup namespace: %w", err)
	}
	return c.Restore(p, opts)
}

// outside manages a cgroup that is there from a thread that is in our own cgroup
// namespace. Restore moves CRIU there and sets the limits on the thread that has entered the
// container's; where cgroup v2 is mounted with nsdelegate, as systemd does, the kernel lets
// no process cross the border of the writer's namespace, and no limit of its root be set from
// within (cgroups(7)).
type outside struct{ cgroups.Manager }

// Apply is part of cgroups.Manager.
func (o outside) Apply(pid int) error {
	return onThread(func() error { return o.AddPid("", pid) })
}

// Set is part of cgroups.Manager.
func (o outside) Set(r *cgroups.Resources) error {
	return onThread(func() error { return o.Manager.Set(r) })
}

// manageFromOutside gives c an outside manager. libcontainer has no other way to it
// than the field.
func manageFromOutside(c *libcontainer.Container) error {
	m, err := field[cgroups.Manager](c, "cgroupManager")
	if err != nil {
		return err
	}
	*m = outside{*m}
	return nil
}

// wantsCgroupNamespace says that the container is to have a new cgroup namespace.
func wantsCgroupNamespace(cfg *configs.Config) bool {
	return cfg.Namespaces.IsPrivate(configs.NEWCGROUP)
}
