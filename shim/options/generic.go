package options

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/config"
)

// runcKeys are runc's options as its table spells them. The last four are accepted
// for the sake of tables that were written for runc, and mean nothing here.
var runcKeys = []string{
	"CriuWorkPath", "IoGid", "IoUid", "NoNewKeyring", "NoPivotRoot", "Root", "ShimCgroup", "SystemdCgroup",
	"BinaryName", "CriuImagePath", "TaskApiAddress", "TaskApiVersion",
}

// genericKeys are those of the generic options themselves: CRI leaves them in the
// table that it passes on.
var genericKeys = []string{"TypeUrl", "ConfigPath"}

// maxConfig bounds a file of options, in bytes.
const maxConfig = 1 << 20

// setGeneric takes over the options that generic ones hold as TOML: runc's keys, and
// the tables of our own configuration. A file comes first, as with other runtimes.
func (o *Options) setGeneric(v *runtimeoptions.Options) error {
	name, body := "the runtime options' ConfigBody", v.ConfigBody
	if v.ConfigPath != "" {
		name = v.ConfigPath
		var err error
		if body, err = readConfig(v.ConfigPath); err != nil {
			return fmt.Errorf("read the file that the runtime options name as ConfigPath: %w", err)
		}
	}
	return o.parse(name, body)
}

func readConfig(path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%q is not an absolute path", path)
	}
	// A FIFO in its place must not stop a start.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is not a regular file", path), err)
	}
	body, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(body) > maxConfig {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxConfig)
	}
	return body, err
}

// parse reads options as TOML, from what is called name in errors.
func (o *Options) parse(name string, body []byte) error {
	all := map[string]any{}
	if err := toml.Unmarshal(body, &all); err != nil {
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, _ := at.Position()
			return fmt.Errorf("read %s: line %d: %w", name, row, err)
		}
		return fmt.Errorf("read %s: %w", name, err)
	}
	var v options.Options
	tables := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		switch {
		case slices.Contains(runcKeys, key):
			// The same library with the same target that CRI uses for runc's table; one
			// key after the other, because not all of its errors name theirs.
			text, err := toml.Marshal(map[string]any{key: all[key]})
			if err == nil {
				err = toml.Unmarshal(text, &v)
			}
			if err != nil {
				return fmt.Errorf("read %s: %s: %w", name, key, err)
			}
		case slices.Contains(config.TableNames(), key):
			tables[key] = all[key]
		case key == "root":
			// Too near to runc's Root to be guessed at.
			return fmt.Errorf("read %s: root, the store's directory, is the node's: set it in %s; runc's option of that name is Root", name, config.DefaultFile)
		case !slices.Contains(genericKeys, key):
			return fmt.Errorf("read %s: unknown key %q; the keys are: %s, [%s]", name, key,
				strings.Join(runcKeys, ", "), strings.Join(config.TableNames(), "], ["))
		}
	}
	o.set(&v)
	var err error
	o.Overlay, err = config.ParseOverlay(name, tables)
	return err
}
