// Package options decodes the runtime options that containerd hands to the
// shim, and keeps them in the bundle for the process that cleans up after a
// shim that died.
package options

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"github.com/containerd-snap/snap/config"
)

// DefaultRoot is where the state of containers is kept, one directory a
// namespace, unless the options name another.
const DefaultRoot = "/run/containerd/snap"

// file is where options are kept below a bundle; the stock shim uses the same.
const file = "options.json"

// Options are runc's runtime options, as far as they mean something to a shim
// that runs no binary, and what a handler sets instead of the host's configuration.
type Options struct {
	// Root is the directory of the containers' state, without the namespace.
	Root          string `json:"root"`
	NoPivotRoot   bool   `json:"noPivotRoot,omitempty"`
	NoNewKeyring  bool   `json:"noNewKeyring,omitempty"`
	SystemdCgroup bool   `json:"systemdCgroup,omitempty"`
	// IOUID and IOGID own the pipes of a process.
	IOUID int `json:"ioUid,omitempty"`
	IOGID int `json:"ioGid,omitempty"`
	// CRIUWorkPath is where CRIU writes its logs; empty for the bundle.
	CRIUWorkPath string `json:"criuWorkPath,omitempty"`
	// ShimCgroup is the cgroup that the shim itself joins.
	ShimCgroup string `json:"shimCgroup,omitempty"`
	// Overlay is what a handler's options set instead of the host's configuration.
	// It matters to starts only, and is not kept.
	Overlay config.Overlay `json:"-"`
}

// Decode reads options of a request: runc's, generic ones as CRI sends them
// for a handler with an options table, or none. InvalidArgument for others.
func Decode(in typeurl.Any) (Options, error) {
	o := Options{Root: DefaultRoot}
	if in == nil || len(in.GetValue()) == 0 {
		return o, nil
	}
	v, err := typeurl.UnmarshalAny(in)
	if err != nil {
		return o, fmt.Errorf("decode runtime options of type %q: this runtime takes %s or %s: %w",
			in.GetTypeUrl(), runcType, genericType, errors.Join(errdefs.ErrInvalidArgument, err))
	}
	switch v := v.(type) {
	case *options.Options:
		// No binary is run, but a wrong name is as wrong as for the stock shim.
		if v.BinaryName != "" {
			if _, err := exec.LookPath(v.BinaryName); err != nil {
				return o, fmt.Errorf("decode runtime options: find BinaryName %q, which this runtime does not need and which can be left out: %w",
					v.BinaryName, errors.Join(errdefs.ErrInvalidArgument, err))
			}
		}
		o.set(v)
		return o, nil
	case *runtimeoptions.Options:
		if err := o.setGeneric(v); err != nil {
			return Options{Root: DefaultRoot}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		return o, nil
	default:
		return o, fmt.Errorf("runtime options are of type %q: this runtime takes %s or %s: %w",
			in.GetTypeUrl(), runcType, genericType, errdefs.ErrInvalidArgument)
	}
}

// set takes over runc's options.
func (o *Options) set(v *options.Options) {
	if v.Root != "" {
		o.Root = v.Root
	}
	o.NoPivotRoot = v.NoPivotRoot
	o.NoNewKeyring = v.NoNewKeyring
	o.SystemdCgroup = v.SystemdCgroup
	o.IOUID = int(v.IoUid)
	o.IOGID = int(v.IoGid)
	o.CRIUWorkPath = v.CriuWorkPath
	o.ShimCgroup = v.ShimCgroup
}

const (
	runcType    = "containerd.runc.v1.Options"
	genericType = "runtimeoptions.v1.Options"
)

// Write keeps the options in the bundle.
func (o Options) Write(bundle string) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, file), data, 0o600); err != nil {
		return fmt.Errorf("keep the runtime options: %w", err)
	}
	return nil
}

// Read reads what Write kept; the defaults if nothing was, or with an error.
func Read(bundle string) (Options, error) {
	o := Options{Root: DefaultRoot}
	data, err := os.ReadFile(filepath.Join(bundle, file))
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	if err != nil {
		o = Options{Root: DefaultRoot}
		return o, fmt.Errorf("read the options kept in bundle %s: %w", bundle, err)
	}
	return o, nil
}
