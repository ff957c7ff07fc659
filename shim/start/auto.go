package start

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/containerd-snap/snap/checkpoint"
	"github.com/containerd-snap/snap/checkpoint/match"
	"github.com/containerd-snap/snap/checkpoint/ready"
	"github.com/containerd-snap/snap/checkpoint/store"
	"github.com/containerd-snap/snap/config"
	"github.com/containerd-snap/snap/oci/spec"
	"github.com/containerd-snap/snap/shim/netns"
	"github.com/containerd-snap/snap/shim/probe"
)

// This file is what shim/auto, which captures without being asked, needs of a container.

// bound keeps a setting within what the host allows, and says in words what that changed;
// "" for nothing. It is no error: an operator who turns captures down must not break what
// is deployed.
func bound(c spec.Capture, host config.Capture) (spec.Capture, string) {
	way := config.OnReady
	if c.Every > 0 {
		way = config.Every
	}
	switch least := time.Duration(host.MinInterval); {
	case c == spec.Capture{}:
	case !slices.Contains(host.Allow, way):
		return spec.Capture{}, fmt.Sprintf("none: this host allows %q ([capture] allow in its configuration)", host.Allow)
	case c.Every > 0 && c.Every < least:
		c.Every = least
		return c, fmt.Sprintf("every %s: the host allows no shorter interval ([capture] min_interval)", least)
	}
	return c, ""
}

// watchOutput looks for the line that says that the program is ready, if that is how it
// says so. It is called before any output can come.
func (i *Init) watchOutput() error {
	if !i.settings.Capture.OnReady || i.settings.Ready.Kind != ready.Log {
		return nil
	}
	var err error
	if i.output, err = probe.NewOutput(i.settings.Ready.Text); err != nil {
		return err
	}
	if !i.io.Tap(i.output.Watch) {
		return fmt.Errorf("%w setting ready=%q: a logging program reads the output itself, the shim does not see it; use another probe",
			checkpoint.ErrInvalid, i.settings.Ready)
	}
	return nil
}

// Output watches what the program prints; nil if that was not asked for.
func (i *Init) Output() *probe.Output { return i.output }

// Settings are what the container's annotations ask for.
func (i *Init) Settings() spec.Settings { return i.settings }

// Store is the node's registry of checkpoints; nil if it cannot be used.
func (i *Init) Store() *store.Store { return i.starter.Store }

// Booted says that the program was booted: a clone is never captured as a template.
func (i *Init) Booted() bool { return i.rec.outcome() == checkpoint.Boot }

// Dial connects to a TCP address, which must be no name, from the container's network
// namespace.
func (i *Init) Dial(ctx context.Context, address string) (conn net.Conn, err error) {
	err = netns.Do(netns.Of(i.PID()), func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

// Run executes a command in the container, within ctx.
func (i *Init) Run(ctx context.Context, args []string) error {
	l, err := i.mustLive()
	if err != nil {
		return err
	}
	return i.run(ctx, l.c, args)
}

// Fingerprint is the container's, computed if the start had no need of it.
func (i *Init) Fingerprint(ctx context.Context) (checkpoint.Fingerprint, error) {
	if i.plan.fingerprint != nil {
		return i.plan.fingerprint, nil
	}
	id, err := i.starter.Images.Lookup(ctx, i.req.ID)
	if err != nil {
		return nil, fmt.Errorf("learn what the container is made of: %w", err)
	}
	if id.Rootfs == "" {
		return nil, fmt.Errorf("the container was not made from an image: %w", errdefs.ErrFailedPrecondition)
	}
	return spec.Fingerprint(i.oci, id.Rootfs), nil
}

// HasTemplate says whether a container like this one would be restored by now.
func (i *Init) HasTemplate(ctx context.Context, f checkpoint.Fingerprint) (bool, error) {
	templates, err := i.starter.Store.Lookup(f.Key())
	if err != nil || len(templates) == 0 {
		return false, err
	}
	facts, err := i.starter.hostFacts(ctx)
	return match.Served(f, templates, facts), err
}

// NoteCapture adds to the record of the start what became of a capture.
func (i *Init) NoteCapture(ctx context.Context, c checkpoint.Capture) { i.rec.captured(ctx, c) }

// forgetTimeout bounds how long an exit waits until resume points are forgotten.
const forgetTimeout = 2 * time.Second

// forgetResumePoints drops the resume points of a program that came to its end: there
// is nothing to go on with, and a container with the same identity that is started
// later begins anew.
func (i *Init) forgetResumePoints() {
	st := i.starter.Store
	if st == nil || i.settings.Capture.Every == 0 && !i.plan.resumes() {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		points, err := st.Lookup(checkpoint.OwnerKey(i.owner()))
		for _, e := range points {
			err = errors.Join(err, st.Remove(e.Digest))
		}
		if err != nil {
			log.L.WithError(err).WithField("id", i.req.ID).Warn("forget the resume points of a program that has ended")
		}
	}()
	select {
	case <-done:
	case <-time.After(forgetTimeout):
	}
}
