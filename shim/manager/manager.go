// Package manager is the shim's short-lived side: containerd executes the
// binary to start a shim's server (or to join that of a pod), to clean up after
// one that died, and to learn what the runtime can do.
package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	_ "github.com/containerd/containerd/v2/core/runtime" // registers the type of features with typeurl
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/schedcore"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/libct"
	runtimeopts "github.com/containerd-snap/snap/shim/options"
	"github.com/containerd-snap/snap/shim/rootfs"
	"github.com/containerd-snap/snap/shim/start"
)

// bootstrapVersion is that of the task API which the server speaks: one shim
// for several containers.
const bootstrapVersion = 3

// groupLabels are the annotations that name the group (pod) whose shim a
// container shares; the first that is set counts. The first is runc's, which
// users of the stock shim set.
var groupLabels = []string{"io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"}

// Manager implements containerd's shim.Shim.
type Manager struct {
	name, version string
	// began is when the program did.
	began time.Time
}

var _ shim.Shim = (*Manager)(nil)

// New returns the manager of the runtime called name, of a program that began at a time.
func New(name, version string, began time.Time) *Manager {
	return &Manager{name: name, version: version, began: began}
}

// Name is the runtime's name.
func (m *Manager) Name() string { return m.name }

// Start starts a server for the container in the working directory, unless the
// one of its group runs already, and answers its address.
func (m *Manager) Start(ctx context.Context, params *bootapi.BootstrapParams) (_ *bootapi.BootstrapResult, retErr error) {
	debug := params.GetLogLevel() <= bootapi.LogLevel_LOG_LEVEL_DEBUG
	bundle, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	group, err := groupOf(bundle, params.GetInstanceID())
	if err != nil {
		return nil, err
	}
	dir := params.GetSocketDir()
	if dir == "" {
		dir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	result := &bootapi.BootstrapResult{Version: bootstrapVersion, Protocol: "ttrpc"}
	var sockets sockets
	defer func() { sockets.close(retErr != nil) }()
	s, err := listen(ctx, dir, params.GetContainerdGrpcAddress(), group, false)
	if errdefs.IsAlreadyExists(err) {
		result.Address = s.address
		return result, nil
	}
	if err != nil {
		return nil, err
	}
	sockets = append(sockets, s)
	result.Address = s.address
	if debug {
		if s, err = listen(ctx, dir, params.GetContainerdGrpcAddress(), group, true); err != nil {
			return nil, err
		}
		sockets = append(sockets, s)
	}
	cmd, err := m.server(ctx, params, result.Address, debug)
	if err != nil {
		return nil, err
	}
	for _, s := range sockets {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.file)
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d %d", envBirth, m.began.UnixNano(), time.Now().UnixNano()))
	if err := run(cmd); err != nil {
		return nil, fmt.Errorf("start the shim's server: %w", err)
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, cmd.Process.Kill())
		}
	}()
	if err := joinShimCgroup(shimCgroup(params), cmd.Process.Pid); err != nil {
		return nil, err
	}
	if err := shim.AdjustOOMScore(cmd.Process.Pid); err != nil {
		return nil, fmt.Errorf("adjust the OOM score of the shim: %w", err)
	}
	return result, nil
}

// run starts the server, in a core scheduling domain of its own where
// containerd's environment asks for it.
func run(cmd *exec.Cmd) error {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	if os.Getenv("SCHED_CORE") != "" {
		if err := schedcore.Create(schedcore.ProcessGroup); err != nil {
			return fmt.Errorf("enable core scheduling: %w", err)
		}
	}
	return cmd.Start()
}

// envAddress tells the server its own address.
const envAddress = "CONTAINERD_SNAP_ADDRESS"

// envBirth tells the server when its parent began, and when it was executed, in nanoseconds
// since 1970.
const envBirth = "CONTAINERD_SNAP_BIRTH"

// Address is the server's own address, as its parent told it; empty if none did.
func Address() string { return told(envAddress) }

// told returns what the parent said in an environment variable, and removes that: it is
// not for hooks and logging programs, which inherit the environment.
func told(variable string) string {
	defer os.Unsetenv(variable)
	return os.Getenv(variable)
}

// Birth is when the server was started, whose program began at a time and which is ready now.
func Birth(began time.Time) *start.Birth {
	var executed, server int64
	if _, err := fmt.Sscan(told(envBirth), &executed, &server); err != nil {
		return nil
	}
	return &start.Birth{Executed: time.Unix(0, executed), Server: time.Unix(0, server), Main: began, Ready: time.Now()}
}

// server is the command of the long-lived process: the same binary, without an action.
func (m *Manager) server(ctx context.Context, params *bootapi.BootstrapParams, address string, debug bool) (*exec.Cmd, error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"-namespace", ns, "-id", params.GetInstanceID(), "-address", params.GetContainerdGrpcAddress()}
	if debug {
		args = append(args, "-debug")
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, args...)
	cmd.Env = append(environ(), "GOMAXPROCS=4", envAddress+"="+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// environ is the environment that the server, and so hooks and logging programs,
// inherit. What systemd gives containerd to tell it of its state is not for them.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") })
}

// groupOf returns the group whose server a container shares.
func groupOf(bundle, id string) (string, error) {
	annotations, err := spec.LoadAnnotations(bundle)
	if err != nil {
		return "", err
	}
	for _, l := range groupLabels {
		if g, ok := annotations[l]; ok {
			return g, nil
		}
	}
	return id, nil
}

// shimCgroup returns what the runtime options, among what containerd hands to a
// start, name as the shim's cgroup. Options that cannot be read are refused by
// Create, whose errors keep their class on the way to the client.
func shimCgroup(params *bootapi.BootstrapParams) string {
	for _, e := range params.GetExtensions() {
		v := e.GetValue()
		if !v.MessageIs(&options.Options{}) && !v.MessageIs(&runtimeoptions.Options{}) {
			continue
		}
		if opts, err := runtimeopts.Decode(v); err == nil {
			return opts.ShimCgroup
		}
	}
	return ""
}

// joinShimCgroup moves the server to the cgroup at path, if there is one to join.
func joinShimCgroup(path string, pid int) error {
	if path == "" {
		return nil
	}
	var err error
	if cgroups.IsCgroup2UnifiedMode() {
		err = cgroups.WriteCgroupProc(filepath.Join("/sys/fs/cgroup", path), pid)
	} else {
		err = joinV1(path, pid)
	}
	if err != nil {
		return fmt.Errorf("join shim cgroup %s: %w", path, err)
	}
	return nil
}

// joinV1 joins the cgroup in each hierarchy that has it; one must.
func joinV1(path string, pid int) error {
	subsystems, err := cgroups.GetAllSubsystems()
	if err != nil {
		return err
	}
	joined := false
	for _, s := range subsystems {
		mnt, err := cgroups.FindCgroupMountpoint("", s)
		if err != nil {
			continue
		}
		err = cgroups.WriteCgroupProc(filepath.Join(mnt, path), pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		joined = joined || err == nil
	}
	if !joined {
		return os.ErrNotExist
	}
	return nil
}

// Stop cleans up after a server that died: it ends what is left of the
// container and answers how its init ended, as far as that is known.
func (m *Manager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return shim.StopStatus{}, err
	}
	bundle := filepath.Join(filepath.Dir(cwd), id)
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return shim.StopStatus{}, err
	}
	opts, err := runtimeopts.Read(bundle)
	if err != nil {
		// Written by a shim that was killed just then: the defaults are most likely right.
		log.G(ctx).WithError(err).WithField("id", id).Warn("options are not known")
	}
	if err := start.Remove(ns, id, bundle, opts); err != nil {
		log.G(ctx).WithError(err).WithField("id", id).Warn("remove what the container left")
	}
	if err := rootfs.Unmount(filepath.Join(bundle, "rootfs")); err != nil {
		log.G(ctx).WithError(err).WithField("id", id).Warn("remove what the container left")
	}
	removeDeadSockets(ctx, bundle, id)
	exit, err := start.ReadExit(bundle)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			log.G(ctx).WithError(err).WithField("id", id).Warn("the exit status is not known")
		}
		exit.Status, exit.At = 128+int(unix.SIGKILL), time.Now()
	}
	return shim.StopStatus{Pid: exit.PID, ExitStatus: exit.Status, ExitedAt: exit.At}, nil
}

// Info tells what the runtime is and can do.
func (m *Manager) Info(_ context.Context, r io.Reader) (*types.RuntimeInfo, error) {
	info := &types.RuntimeInfo{Name: m.name, Version: &types.RuntimeVersion{Version: m.version}}
	opts, err := shim.ReadRuntimeOptions[proto.Message](r)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("read runtime options: %w", err)
	}
	if opts != nil {
		if info.Options, err = typeurl.MarshalAnyToProto(opts); err != nil {
			return nil, fmt.Errorf("encode %T: %w", opts, err)
		}
	}
	if info.Features, err = typeurl.MarshalAnyToProto(libct.Features()); err != nil {
		return nil, fmt.Errorf("encode features: %w", err)
	}
	return info, nil
}
