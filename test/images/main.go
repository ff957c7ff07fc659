// Command images writes a container image as one file, an OCI layout in a tar
// archive that `ctr images import` and others read, without a registry and
// without a daemon. The integration tests and the demo run on such images.
//
//	images -o FILE -name NAME -busybox /bin/busybox [-add DIR]... [COMMAND...]
//	images -o FILE -name NAME -layer ROOTFS.tar     [-add DIR]... [COMMAND...]
//	images -o FILE -name NAME -from IMAGE.tar       [-add DIR]... [COMMAND...]
//
// Each -add puts a directory's content over what is there, as one more layer
// owned by root. With -stand-in the image has more than one platform, as those
// of registries have. The same input gives the same digest: times are constant and
// names are sorted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// options is the command line.
type options struct {
	out, name            string
	busybox, layer, from string
	add, env, volumes    words
	platform             ocispec.Platform
	standIns             []ocispec.Platform
	workdir, user        string
	command              []string
}

// words is a flag that can be given several times.
type words []string

func (w *words) String() string     { return strings.Join(*w, " ") }
func (w *words) Set(s string) error { *w = append(*w, s); return nil }

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("images", flag.ContinueOnError)
	f.StringVar(&o.out, "o", "", "write the image to this `file`")
	f.StringVar(&o.name, "name", "", "full `name` of the image, with its tag")
	f.StringVar(&o.busybox, "busybox", "", "begin with a root file system around this static `program`")
	f.StringVar(&o.layer, "layer", "", "begin with this root file system, a plain tar `file`")
	f.StringVar(&o.from, "from", "", "begin with the image in this `file`")
	f.Var(&o.add, "add", "put the content of this `directory` over it; can be repeated")
	f.Var(&o.env, "env", "set an environment variable, `NAME=VALUE`; can be repeated")
	f.Var(&o.volumes, "volume", "declare this `directory` a volume; can be repeated")
	f.Func("platform", "`platform` that the programs in the image are for, this machine's if none is given", func(s string) (err error) {
		o.platform, err = parsePlatform(s)
		return err
	})
	f.Func("stand-in", "offer the image for this `platform` too, without programs; can be repeated", func(s string) error {
		p, err := parsePlatform(s)
		o.standIns = append(o.standIns, p)
		return err
	})
	f.StringVar(&o.workdir, "workdir", "", "working `directory` of the command")
	f.StringVar(&o.user, "user", "", "`user` that runs the command")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.command = f.Args()

	bases := 0
	for _, b := range []string{o.busybox, o.layer, o.from} {
		if b != "" {
			bases++
		}
	}
	switch {
	case bases != 1:
		return o, errors.New("give one of -busybox, -layer and -from")
	case o.out == "":
		return o, errors.New("give the file to write: -o FILE")
	case !strings.Contains(o.name, "/") || !strings.Contains(o.name, ":"):
		return o, fmt.Errorf("name the image %q in full, as in localhost/snap/name:1", o.name)
	}
	for _, e := range o.env {
		if !strings.Contains(e, "=") {
			return o, fmt.Errorf("set -env %q: it is not NAME=VALUE", e)
		}
	}
	return o, nil
}

// run builds the image that args describe. The context ends the only program it starts.
func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	im := newImage()
	defer im.close()
	switch {
	case o.from != "":
		err = im.load(o.from)
	case o.layer != "":
		err = im.addTar(o.layer)
	default:
		var t tree
		if t, err = busyboxTree(ctx, o.busybox); err == nil {
			err = im.addTree(t)
		}
	}
	if err != nil {
		return err
	}
	for _, dir := range o.add {
		t, err := readTree(dir)
		if err != nil {
			return err
		}
		if err := im.addTree(t); err != nil {
			return err
		}
	}
	im.configure(o)
	return im.write(o.out, o.name)
}
