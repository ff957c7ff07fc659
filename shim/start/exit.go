package start

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd-snap/snap/shim/lifecycle"
)

// exitFile keeps init's exit below the bundle, so that `delete` tells the
// truth after the shim has died.
const exitFile = "exit.json"

// WriteExit keeps e in the bundle, whole or not at all.
func WriteExit(bundle string, e lifecycle.Exit) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	tmp := filepath.Join(bundle, "."+exitFile)
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("keep the exit status: %w", err)
	}
	return os.Rename(tmp, filepath.Join(bundle, exitFile))
}

// ReadExit returns what WriteExit kept. An error wraps os.ErrNotExist if it
// was never called.
func ReadExit(bundle string) (lifecycle.Exit, error) {
	var e lifecycle.Exit
	data, err := os.ReadFile(filepath.Join(bundle, exitFile))
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err != nil {
		return e, fmt.Errorf("read the kept exit status: %w", err)
	}
	return e, nil
}
