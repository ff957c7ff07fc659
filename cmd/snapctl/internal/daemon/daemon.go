// Package daemon connects to containerd, and says in an operator's words why that cannot
// be done. It has no state and no locks.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

const (
	// EnvAddress is the environment variable from which containerd's other clients
	// take its address.
	EnvAddress = "CONTAINERD_ADDRESS"
	// timeout bounds what containerd is asked first: who answers that answers the rest.
	timeout = 5 * time.Second
)

// ErrUnreachable is returned where containerd does not answer.
var ErrUnreachable = errors.New("containerd does not answer")

// DefaultAddress is the path of containerd's socket unless the user names another.
func DefaultAddress() string {
	if a := os.Getenv(EnvAddress); a != "" {
		return a
	}
	return defaults.DefaultAddress
}

// Daemon is a containerd that answers.
type Daemon struct {
	*client.Client
	// Version is what it said of itself.
	Version string
}

// Connect connects to the containerd at address, and returns a context in which it is
// asked about namespace. Errors wrap ErrUnreachable.
func Connect(ctx context.Context, address, namespace string) (*Daemon, context.Context, error) {
	fail := func(err error, remedy string) error {
		return fmt.Errorf("ask containerd at %s: %w: %w; %s", address, ErrUnreachable, err, remedy)
	}
	st, err := os.Stat(address)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil, fail(errors.New("there is no such socket"), "start it, or name its socket with --address or "+EnvAddress)
	case errors.Is(err, os.ErrPermission):
		return nil, nil, fail(errors.New("permission denied"), "run this as root")
	case err != nil:
		return nil, nil, fail(err, "name its socket with --address or "+EnvAddress)
	case st.Mode().Type() != os.ModeSocket:
		return nil, nil, fail(errors.New("it is no socket"), "name its socket with --address or "+EnvAddress)
	}
	c, err := client.New(address, client.WithDefaultNamespace(namespace), client.WithTimeout(timeout))
	if err != nil {
		return nil, nil, fail(err, "see its log")
	}
	ctx = namespaces.WithNamespace(ctx, namespace)
	asked, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, err := c.Version(asked)
	if err != nil {
		c.Close()
		remedy := "see its log"
		if os.Geteuid() != 0 {
			remedy = "run this as root"
		}
		return nil, nil, fail(err, remedy)
	}
	return &Daemon{Client: c, Version: v.Version}, ctx, nil
}
