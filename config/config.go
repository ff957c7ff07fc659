// Package config is what the host's administrator sets for the runtime: where the
// store is, what annotations default to, what captures containers may ask for, and
// how much the store may hold.
//
// It comes from a file, and a runtime handler's options may override all of it but
// the store's place. Nothing of it changes once it is read.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/containerd-snap/snap/checkpoint/retain"
	"github.com/containerd-snap/snap/oci/spec"
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
	Tables
}

// Tables are the part that a runtime handler's options may override, key by key.
type Tables struct {
	// Defaults are values of annotations, by key without prefix, for containers
	// that do not carry them.
	Defaults map[string]string `toml:"defaults"`
	Capture  Capture           `toml:"capture"`
	Limits   Limits            `toml:"limits"`
}

// Settings returns what holds for a container whose annotations do not say otherwise.
func (t *Tables) Settings() spec.Settings {
	s, err := spec.ParseDefaults(t.Defaults)
	if err != nil {
		return spec.DefaultSettings() // cannot be: they were read once
	}
	return s
}

// The tables' names.
const (
	tableDefaults = "defaults"
	tableCapture  = "capture"
	tableLimits   = "limits"
)

// TableNames are the names of the tables.
func TableNames() []string { return []string{tableDefaults, tableCapture, tableLimits} }

// Capture bounds what containers may ask for. It does not bind the operator.
type Capture struct {
	// Allow lists the ways of capturing that annotations may choose.
	Allow []string `toml:"allow"`
	// MinInterval is the shortest time between two resume points of a container.
	MinInterval Duration `toml:"min_interval"`
}

// Limits are the store's budgets; 0 is no limit.
type Limits struct {
	// MaxBytes is the size of all checkpoints together.
	MaxBytes Size `toml:"max_bytes"`
	// PerImage is the number of templates of one image and command.
	PerImage int `toml:"per_image"`
	// MaxAge is counted from the capture, MaxIdle from the last use.
	MaxAge  Duration `toml:"max_age"`
	MaxIdle Duration `toml:"max_idle"`
	// ResumePoints is the number of resume points of one owner; at least 1.
	ResumePoints int `toml:"resume_points"`
}

// Default returns what holds without a file.
func Default() Config {
	return Config{
		Root: DefaultRoot,
		Tables: Tables{
			Capture: Capture{Allow: []string{OnReady, Every}, MinInterval: Duration(time.Minute)},
			Limits:  Limits{PerImage: 8, MaxIdle: Duration(30 * day), ResumePoints: 2},
		},
	}
}

// File returns the path of the file.
func File() string {
	if file := os.Getenv(EnvFile); file != "" {
		return file
	}
	return DefaultFile
}

// Load reads the file. An unknown key is an error that names it.
func Load() (Config, error) {
	file := File()
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && file == DefaultFile {
		return Default(), nil
	}
	if err != nil {
		return Default(), fmt.Errorf("read the configuration: %w; make the file, or have %s name another", err, EnvFile)
	}
	return Parse(file, data)
}

// Parse reads the content of the file called name. After an error it returns the
// defaults, with the store's directory if that much can be read: what goes wrong
// because of the error is recorded there.
func Parse(name string, data []byte) (Config, error) {
	c := Default()
	err := decode(name, data, &c, "root, ["+tableDefaults+"], ["+tableCapture+"], ["+tableLimits+"]")
	switch {
	case err != nil:
		var known struct {
			Root string `toml:"root"`
		}
		if toml.Unmarshal(data, &known) == nil && filepath.IsAbs(known.Root) {
			c.Root = known.Root
		} else {
			c.Root = DefaultRoot
		}
	case !filepath.IsAbs(c.Root):
		err = fmt.Errorf("read %s: root = %q is not an absolute path", name, c.Root)
		c.Root = DefaultRoot
	default:
		if err = c.check(); err != nil {
			err = fmt.Errorf("read %s: %w", name, err)
		}
	}
	if err != nil {
		root := c.Root
		c = Default()
		c.Root = root
	}
	return c, err
}

// decode reads TOML over what v holds.
func decode(name string, data []byte, v any, keys string) error {
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(v)
	if err == nil {
		return nil
	}
	// One line each: errors become reasons of decisions.
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok && len(strict.Errors) > 0 {
		row, _ := strict.Errors[0].Position()
		return fmt.Errorf("read %s: line %d: unknown key %s; the keys are: %s; of [%s]: %s; of [%s]: %s",
			name, row, strings.Join(strict.Errors[0].Key(), "."), keys, tableCapture, captureKeys, tableLimits, limitKeys)
	}
	if at, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := at.Position()
		return fmt.Errorf("read %s: line %d: %s: %w", name, row, strings.Join(at.Key(), "."), err)
	}
	return fmt.Errorf("read %s: %w", name, err)
}

// Overlay is a configuration's tables as a runtime handler's options hold them. The
// zero value holds none.
type Overlay struct {
	// text is TOML that was checked against the defaults.
	text string
}

// ParseOverlay reads tables, which the options called name hold.
func ParseOverlay(name string, tables map[string]any) (Overlay, error) {
	if len(tables) == 0 {
		return Overlay{}, nil
	}
	text, err := toml.Marshal(tables)
	if err != nil {
		return Overlay{}, fmt.Errorf("read %s: %w", name, err)
	}
	o := Overlay{text: string(text)}
	_, err = Default().With(name, o)
	return o, err
}

// With returns the configuration with what the overlay, of options called name, sets.
func (c Config) With(name string, o Overlay) (Config, error) {
	if o.text == "" {
		return c, nil
	}
	t := c.Tables
	t.Defaults = maps.Clone(c.Defaults)
	t.Capture.Allow = nil // a list is replaced, not added to
	if err := decode(name, []byte(o.text), &t, "["+tableDefaults+"], ["+tableCapture+"], ["+tableLimits+"]"); err != nil {
		return c, err
	}
	if t.Capture.Allow == nil {
		t.Capture.Allow = c.Capture.Allow
	}
	if err := t.check(); err != nil {
		return c, fmt.Errorf("read %s: %w", name, err)
	}
	c.Tables = t
	return c, nil
}

// check says whether the values make sense.
func (t *Tables) check() error {
	if _, err := spec.ParseDefaults(t.Defaults); err != nil {
		return fmt.Errorf("[%s]: %w", tableDefaults, err)
	}
	for _, way := range t.Capture.Allow {
		if way != OnReady && way != Every {
			return fmt.Errorf("[%s] allow: %q is none of %s and %s", tableCapture, way, OnReady, Every)
		}
	}
	for _, n := range []struct {
		key   string
		value int
		least int
	}{{"per_image", t.Limits.PerImage, 0}, {"resume_points", t.Limits.ResumePoints, 1}} {
		if n.value < n.least || n.value > maxCount {
			return fmt.Errorf("[%s] %s = %d: allowed are %d to %d", tableLimits, n.key, n.value, n.least, maxCount)
		}
	}
	return nil
}

// The ways of capturing without hands that Capture.Allow may list.
const (
	OnReady = "OnReady"
	Every   = "Every"
)

const (
	captureKeys = "allow, min_interval"
	limitKeys   = "max_bytes, per_image, max_age, max_idle, resume_points"
	// maxCount bounds what is counted; more is a slip of the keyboard.
	maxCount = 1 << 20
)

// Retain returns the limits as the store takes them.
func (l Limits) Retain() retain.Limits {
	return retain.Limits{
		MaxBytes:     int64(l.MaxBytes),
		PerImage:     l.PerImage,
		MaxAge:       time.Duration(l.MaxAge),
		MaxIdle:      time.Duration(l.MaxIdle),
		ResumePoints: l.ResumePoints,
	}
}
