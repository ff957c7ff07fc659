package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/checkpoint/criu"
	"github.com/containerd-snap/snap/checkpoint/mapped"
	"github.com/containerd-snap/snap/test/harness"
	"github.com/containerd-snap/snap/test/measure"
)

// byHand restores a program without containerd: by runc, and by CRIU without any container.
type byHand struct {
	b *bench
	p *program
	// spec is that of a container of the program.
	spec map[string]any
	// undo removes what was made, the last first.
	undo []func() error
}

func newByHand(b *bench, p *program) *byHand { return &byHand{b: b, p: p} }

func (h *byHand) close(context.Context) error {
	var errs []error
	for _, v := range slices.Backward(h.undo) {
		errs = append(errs, v())
	}
	h.undo = nil
	return errors.Join(errs...)
}

// modes prepares what can be, and notes why something cannot.
func (h *byHand) modes(ctx context.Context, r *restore) []mode {
	var all []mode
	if h.spec == nil {
		return nil
	}
	m, err := h.runc(ctx)
	if err != nil {
		h.b.failed("restore "+h.p.name+", runc by hand", err)
		r.Why["runc"] = brief(err)
	} else {
		all = append(all, m)
	}
	floor, err := h.alone(ctx, r)
	if err != nil {
		// CRIU dumps no program that it was not asked to dump as a container's.
		h.b.say("%s: CRIU alone: %v", h.p.name, err)
		r.Why["criu"] = brief(err)
	}
	return append(all, floor...)
}

// rootfs mounts the program's root file system, writable, at a directory.
func (h *byHand) rootfs(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := h.b.ctr(ctx, "images", "mount", "--rw", "--snapshotter", "overlayfs", h.p.image, dir); err != nil {
		return err
	}
	h.undo = append(h.undo, func() error { return h.b.ctr(context.WithoutCancel(ctx), "images", "unmount", "--rm", dir) })
	return nil
}

// runc boots the program with runc, and dumps it.
func (h *byHand) runc(ctx context.Context) (mode, error) {
	runc, err := harness.Tool("runc")
	if err != nil {
		return mode{}, err
	}
	dir := filepath.Join(h.b.dir, h.p.name+"-runc")
	bundle, images := filepath.Join(dir, "bundle"), filepath.Join(dir, "images")
	if err := h.rootfs(ctx, filepath.Join(bundle, "rootfs")); err != nil {
		return mode{}, err
	}
	id := h.b.id("runc")
	h.spec["linux"].(map[string]any)["cgroupsPath"] = "/" + h.b.node.CgroupParent + "/" + id //nolint:forcetypeassert // it is one of containerd's making
	data, err := json.Marshal(h.spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o600)
	}
	if err != nil {
		return mode{}, err
	}
	pidFile := filepath.Join(dir, "pid")
	call := func(ctx context.Context, args ...string) error {
		return quietly(ctx, runc, append([]string{"--root", filepath.Join(dir, "state")}, args...)...)
	}
	end := func() error {
		ctx, cancel := measure.ToTheEnd(ctx, commandTimeout)
		defer cancel()
		return call(ctx, "delete", "--force", id)
	}
	h.undo = append(h.undo, end)
	begin := func(ctx context.Context, args ...string) (float64, error) {
		began := time.Now()
		if err := call(ctx, append(args, "--detach", "--bundle", bundle, "--pid-file", pidFile, id)...); err != nil {
			return 0, err
		}
		pid, err := readPID(pidFile)
		if err == nil {
			err = harness.SetLoopbackUp(pid)
		}
		if err == nil {
			err = h.answered(ctx, pid, args[0] == "run")
		}
		return measure.Milliseconds(time.Since(began)), err
	}
	if _, err := begin(ctx, "run"); err != nil {
		return mode{}, err
	}
	err = settled(ctx, func() error { return call(ctx, "checkpoint", "--image-path", images, "--work-path", dir, id) })
	if err != nil {
		return mode{}, err
	}
	return mode{"runc", func(ctx context.Context) (float64, error) {
		ms, err := begin(ctx, "restore", "--image-path", images, "--work-path", dir)
		return ms, errors.Join(err, end())
	}}, nil
}

// answered waits for the program's first answer; a booted one is given its data.
func (h *byHand) answered(ctx context.Context, pid int, booted bool) error {
	ctx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	return measure.Poll(ctx, func() (bool, error) {
		ready := !booted || h.p.load == nil || h.p.load(ctx, pid) == nil
		return ready && h.p.answer(ctx, pid) == nil, nil
	})
}

// alone boots the program without a container, in its root file system, and
// dumps it. What is restored then is the least that CRIU has to do.
func (h *byHand) alone(ctx context.Context, r *restore) ([]mode, error) {
	dir := filepath.Join(h.b.dir, h.p.name+"-criu")
	root, images := filepath.Join(dir, "rootfs"), filepath.Join(dir, "images")
	if err := h.rootfs(ctx, root); err != nil {
		return nil, err
	}
	cmd, err := h.plain(root)
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	booting, giveUp := context.WithCancelCause(ctx)
	go func() {
		// The dump ends it.
		giveUp(fmt.Errorf("the program ended: %w", cmd.Wait()))
		close(ended)
	}()
	pid := 0
	stop := func() {
		if pid != 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		_ = cmd.Process.Kill()
		<-ended
	}
	err = measure.Poll(booting, func() (bool, error) {
		tree := treeOf(cmd.Process.Pid)
		if len(tree) < 2 {
			return false, nil
		}
		pid = tree[1]
		return true, nil
	})
	if err == nil {
		err = h.answered(booting, pid, true)
	}
	if err != nil {
		stop()
		return nil, err
	}
	err = os.Mkdir(images, 0o700)
	if err == nil {
		err = settled(ctx, func() error { return dump(ctx, images, pid) })
	}
	stop()
	if err != nil {
		return nil, err
	}
	modes := []mode{{"criu", func(ctx context.Context) (float64, error) { return h.criuBack(ctx, dir, root, images, nil) }}}
	if r.Why["mapped"] != "" {
		return modes, nil
	}
	shaped := filepath.Join(dir, "mapped")
	if err := os.Mkdir(shaped, 0o700); err != nil {
		return modes, err
	}
	if _, err := mapped.Convert(ctx, shaped, images); err != nil {
		return modes, err
	}
	return append(modes, mode{"criu mapped", func(ctx context.Context) (float64, error) {
		pages, err := mapped.OpenFiles(shaped)
		if err != nil {
			return 0, err
		}
		defer mapped.CloseFiles(pages)
		return h.criuBack(ctx, dir, root, shaped, pages)
	}}), nil
}

// pivot makes $0 the root of its mount namespace, and executes the rest below it, in the
// directory that comes first. Files that are open would have to be found again: there is
// nothing open but one below that root.
const pivot = `cd "$0" && pivot_root . tmp && exec /busybox sh -c 'mount -t proc proc /proc && umount -l /tmp && cd "$0" &&
	exec /busybox setsid "$@" <>/.out >&0 2>&0' "$@"`

// plain is the program's command, as the container's specification has it, in mount and pid
// namespaces of its own.
func (h *byHand) plain(root string) (*exec.Cmd, error) {
	var spec struct {
		Process struct {
			Args, Env []string
			Cwd       string
		}
	}
	data, err := json.Marshal(h.spec)
	if err == nil {
		err = json.Unmarshal(data, &spec)
	}
	if err != nil {
		return nil, err
	}
	const shell = "/bin/busybox"
	if err := quietly(context.Background(), "cp", shell, filepath.Join(root, "busybox")); err != nil {
		return nil, err
	}
	if err := makeDevices(filepath.Join(root, "dev")); err != nil {
		return nil, err
	}
	p := spec.Process
	args := append([]string{"--mount", "--pid", "--fork", "--propagation", "private", shell, "sh", "-c", pivot, root, p.Cwd}, p.Args...)
	cmd := exec.Command("unshare", args...) //nolint:noctx // CRIU ends it
	cmd.Env = p.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// makeDevices makes those that programs open when they boot (linux/Documentation/admin-guide/devices.txt).
func makeDevices(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "random": 8, "urandom": 9} {
		const memory = 1 // the major number
		err := unix.Mknod(filepath.Join(dir, name), unix.S_IFCHR|0o666, int(unix.Mkdev(memory, minor)))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make the device %s: %w", name, err)
		}
	}
	return nil
}

// settled tries again for a while what fails as long as the program has not yet closed the
// connection over which it has answered.
func settled(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

const settleTimeout = 10 * time.Second

func dump(ctx context.Context, images string, pid int) error {
	err := quietly(ctx, "criu", "dump", "--tree", strconv.Itoa(pid), "--images-dir", images, "--log-file", "dump.log",
		"--file-locks", "--tcp-close", "--network-lock", "skip", "--ghost-limit", "64M")
	if err != nil {
		err = fmt.Errorf("%s (%w)", criu.DiagnoseFile(filepath.Join(images, "dump.log")), err)
	}
	return err
}

// criuBack restores the program, and ends it.
func (h *byHand) criuBack(ctx context.Context, dir, root, images string, pages []mapped.Source) (ms float64, retErr error) {
	pidFile := filepath.Join(dir, "pid")
	_ = os.Remove(pidFile) // of the restore before
	cmd := exec.CommandContext(ctx, "criu", "restore", "--images-dir", images, "--work-dir", dir, "--log-file", "restore.log",
		"--root", root, "--restore-detached", "--pidfile", pidFile, "--file-locks", "--tcp-close")
	for _, p := range pages {
		cmd.ExtraFiles = append(cmd.ExtraFiles, p.File)
		cmd.Args = append(cmd.Args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", 2+len(cmd.ExtraFiles), p.Name))
	}
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("criu restore: %w: %s", err, out)
	}
	pid, err := readPID(pidFile)
	if err != nil {
		return 0, err
	}
	defer func() { retErr = errors.Join(retErr, kill(ctx, pid)) }()
	err = h.answered(ctx, pid, false)
	return measure.Milliseconds(time.Since(began)), err
}

// kill ends a process that is no child of ours, and its descendants, and waits until they are gone.
func kill(ctx context.Context, pid int) error {
	ctx, cancel := measure.ToTheEnd(ctx, commandTimeout)
	defer cancel()
	for _, p := range treeOf(pid) {
		_ = unix.Kill(p, unix.SIGKILL) // it may have ended
		err := measure.Poll(ctx, func() (bool, error) { return errors.Is(unix.Kill(p, 0), unix.ESRCH), nil })
		if err != nil {
			return fmt.Errorf("end process %d: %w", p, err)
		}
	}
	return nil
}

func readPID(file string) (int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// quietly runs a command on pipes, as runc wants them for a checkpoint, and tells what it
// printed if it fails. What it starts may keep the pipes.
func quietly(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	in, inWriter, err := os.Pipe()
	if err != nil {
		return err
	}
	out, outWriter, err := os.Pipe()
	if err != nil {
		return errors.Join(err, in.Close(), inWriter.Close())
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, outWriter, outWriter
	said := make(chan string, 1)
	go func() {
		defer out.Close()
		defer inWriter.Close()
		const most = 4 << 10
		data, _ := io.ReadAll(io.LimitReader(out, most))
		said <- string(data)
		_, _ = io.Copy(io.Discard, out)
	}()
	err = cmd.Run()
	in.Close()
	outWriter.Close()
	if err == nil {
		return nil
	}
	select {
	case text := <-said:
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, text)
	case <-time.After(time.Second): // somebody else holds the pipe
		return fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
}
