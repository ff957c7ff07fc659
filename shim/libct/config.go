// Package libct is the only user of libcontainer: it boots, restores,
// checkpoints and removes containers, and starts processes in them.
//
// libcontainer's Go API promises no stability, so everything that the shim
// knows of it stands here. What is relied upon beyond the API's types has a test
// against the real libcontainer and CRIU, which a new version must pass:
//
//   - the errors that are told apart, and the words of a failed start that clients
//     look for: TestContractErrors, TestContractWords, TestIDIsTaken, TestBootFails
//   - the files of a container's state, Load after a boot, the FIFO that init waits
//     on: TestContractStateDirectory, TestBoot, TestRemove
//   - views of one container share what Config returns, and nothing else; signals
//     wait for no lock; Set with SkipDevices: TestContractViews, TestUpdate
//   - labels: those that hooks are told, the one that names CRIU's configuration:
//     TestConfigLabels, TestContractCRIUConfig, TestContractHooksOfABoot
//   - hooks: which run at setup-namespaces of a restore and in which order, where
//     they run, that function hooks are not saved, when poststop ones run: TestHooks,
//     TestContractRestore, TestContractHooksOfABoot, TestRestoreIsCancelled
//   - a restore: the held process is our child, CRIU runs in the container's cgroup,
//     criu-root comes and goes, Process is good for waiting and Container is not:
//     TestContractRestore, TestRestore, TestFinishFails, TestAbort
//   - images: descriptors.json, what is left out of the network namespace, what
//     CRIU's title tells: TestContractDescriptors, TestNetworkOfImages, TestContractDumpTitle
//   - cgroups: the path of each driver, the names under which they are told, that a
//     frozen one can be killed: TestContractCgroupPaths, TestContractToldCgroups,
//     TestContractKillFrozen, TestFreeze; where a container keeps its manager:
//     TestContractCgroupManager
//   - what is ours does not reach a container, and no notify socket is made (that is
//     runc's main program's): TestContractEnvironment
//   - the first thread is left alone: TestFirstThreadStays
//
// A binary that uses this package is re-executed by libcontainer with "init"
// as its first argument; Init must then be called before anything else.
package libct

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	_ "github.com/opencontainers/cgroups/devices" // device rules of cgroup v1 and v2
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // the C half of init
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// InitArg is the first argument with which libcontainer re-executes the binary.
const InitArg = "init"

// Init is the container's init. It does not return.
func Init() { libcontainer.Init() }

// criuConfigLabel tells libcontainer which CRIU configuration file to name to
// CRIU. Without it, CRIU would read the host's /etc/criu/runc.conf, which must
// not change what a checkpoint is.
//
// Labels are what hooks are told as annotations, and this one is none of the
// user's. So a container has a label without a value in its place, which
// libcontainer passes over, but for the time of a call of CRIU.
const (
	criuConfigLabel = "org.criu.config"
	noCRIUConfig    = criuConfigLabel
)

// nameCRIUConfig names the bundle's configuration file to the CRIU that is called
// next, forgetCRIUConfig ends that. Both change the labels in place.
func (s *Spec) nameCRIUConfig(labels []string) { replace(labels, noCRIUConfig, s.criuConfig()) }

func (s *Spec) forgetCRIUConfig(labels []string) { replace(labels, s.criuConfig(), noCRIUConfig) }

func (s *Spec) criuConfig() string {
	return criuConfigLabel + "=" + filepath.Join(s.Bundle, CRIUConfigFile)
}

func replace(labels []string, from, to string) {
	if n := slices.Index(labels, from); n >= 0 {
		labels[n] = to
	}
}

// CRIUConfigFile is where, below a bundle, the CRIU configuration for the next
// checkpoint or restore of its container is written.
const CRIUConfigFile = "criu.conf"

// Spec describes a container to be made.
type Spec struct {
	ID string
	// Bundle is the absolute path of its bundle.
	Bundle string
	// OCI is its runtime spec, with absolute paths.
	OCI *specs.Spec
	// SystemdCgroup, NoPivotRoot and NoNewKeyring are runc's options of those names.
	SystemdCgroup, NoPivotRoot, NoNewKeyring bool
	// NetNS and UTSNS, if set, are paths of namespaces to join where the spec
	// asks for new ones: of those that were made before the container.
	NetNS, UTSNS string
}

// config converts the spec to libcontainer's.
func (s *Spec) config() (*configs.Config, error) {
	cfg, err := specconv.CreateLibcontainerConfig(s.createOpts())
	if err != nil {
		return nil, fmt.Errorf("convert the spec of container %s: %w: %w", s.ID, err, errdefs.ErrInvalidArgument)
	}
	// specconv takes the bundle from the working directory, which in a pod's
	// shim is that of another container; hooks are told this path.
	// The second comes first among those of its key, so that it wins over the user's own.
	labels := []string{"bundle=" + s.Bundle, noCRIUConfig}
	for _, l := range cfg.Labels {
		if !strings.HasPrefix(l, "bundle=") {
			labels = append(labels, l)
		}
	}
	cfg.Labels = labels
	if cfg.Hooks == nil {
		cfg.Hooks = configs.Hooks{}
	}
	join(cfg, configs.NEWNET, s.NetNS)
	join(cfg, configs.NEWUTS, s.UTSNS)
	return cfg, nil
}

func (s *Spec) createOpts() *specconv.CreateOpts {
	return &specconv.CreateOpts{
		CgroupName:       s.ID,
		UseSystemdCgroup: s.SystemdCgroup,
		NoPivotRoot:      s.NoPivotRoot,
		NoNewKeyring:     s.NoNewKeyring,
		Spec:             s.OCI,
	}
}

// join gives a namespace that the config would make anew a path to join.
func join(cfg *configs.Config, t configs.NamespaceType, path string) {
	if path == "" {
		return
	}
	for i, ns := range cfg.Namespaces {
		if ns.Type == t && ns.Path == "" {
			cfg.Namespaces[i].Path = path
			if t == configs.NEWNET {
				// Its loopback interface is up already.
				cfg.Networks = nil
			}
		}
	}
}

// Files are a process's ends of its standard streams. With a Console the
// process gets a terminal, whose master is sent over that socket.
type Files struct {
	Stdin, Stdout, Stderr *os.File
	Console               *os.File
}

// process converts an OCI process to libcontainer's.
func process(p *specs.Process, files Files) (*libcontainer.Process, error) {
	lp := &libcontainer.Process{
		Args:            p.Args,
		Env:             p.Env,
		UID:             int(p.User.UID),
		GID:             int(p.User.GID),
		Cwd:             p.Cwd,
		Label:           p.SelinuxLabel,
		NoNewPrivileges: &p.NoNewPrivileges,
		AppArmorProfile: p.ApparmorProfile,
		Scheduler:       p.Scheduler,
		IOPriority:      p.IOPriority,
		LogLevel:        initLogLevel,
	}
	if p.Terminal {
		lp.ConsoleSocket = files.Console
	} else {
		lp.Stdin, lp.Stdout, lp.Stderr = files.Stdin, files.Stdout, files.Stderr
	}
	if p.ConsoleSize != nil {
		lp.ConsoleWidth = uint16(p.ConsoleSize.Width)
		lp.ConsoleHeight = uint16(p.ConsoleSize.Height)
	}
	if c := p.Capabilities; c != nil {
		lp.Capabilities = &configs.Capabilities{
			Bounding:    c.Bounding,
			Effective:   c.Effective,
			Inheritable: c.Inheritable,
			Permitted:   c.Permitted,
			Ambient:     c.Ambient,
		}
	}
	for _, g := range p.User.AdditionalGids {
		lp.AdditionalGroups = append(lp.AdditionalGroups, int(g))
	}
	for _, l := range p.Rlimits {
		rl, err := rlimit(l)
		if err != nil {
			return nil, err
		}
		lp.Rlimits = append(lp.Rlimits, rl)
	}
	affinity, err := configs.ConvertCPUAffinity(p.ExecCPUAffinity)
	if err != nil {
		return nil, fmt.Errorf("read execCPUAffinity: %w", err)
	}
	lp.CPUAffinity = affinity
	return lp, nil
}

// initLogLevel is logrus's number for errors: what init reports at that level
// becomes part of the error of the start.
const initLogLevel = "2"
