// Package config reads what the host's administrator sets for the runtime and
// its operator's command.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

const (
	// DefaultFile is read unless EnvFile names another.
	DefaultFile = "/etc/containerd/snap.toml"
	// EnvFile is the environment variable that names the file; containerd
	// passes its own environment on to shims.
	EnvFile = "CONTAINERD_SNAP_CONFIG"
	// DefaultRoot is where registered checkpoints are kept.
	DefaultRoot = "/var/lib/containerd-snap"
)

// Config is the content of the file. Each key has a default; an absent file is
// an empty one.
type Config struct {
	// Root is the store's directory, an absolute path.
	Root string `toml:"root"`
}

// Load reads the file. An unknown key is an error that names it.
func Load() (Config, error) {
	c := Config{Root: DefaultRoot}
	file := os.Getenv(EnvFile)
	if file == "" {
		file = DefaultFile
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && file == DefaultFile {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	err = c.parse(file, data)
	return c, err
}

func (c *Config) parse(file string, data []byte) error {
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
			return fmt.Errorf("read %s: unknown key; the keys are: root\n%s", file, strict.String())
		}
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			return fmt.Errorf("read %s: %w\n%s", file, err, at.String())
		}
		return fmt.Errorf("read %s: %w", file, err)
	}
	if !filepath.IsAbs(c.Root) {
		return fmt.Errorf("read %s: root = %q is not an absolute path", file, c.Root)
	}
	return nil
}
