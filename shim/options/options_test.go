package options

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func marshal(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := typeurl.MarshalAnyToProto(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDecode(t *testing.T) {
	var none *anypb.Any
	for name, c := range map[string]struct {
		any  typeurl.Any
		want Options
	}{
		"nothing":          {nil, Options{Root: DefaultRoot}},
		"no message":       {none, Options{Root: DefaultRoot}},
		"an empty message": {&anypb.Any{}, Options{Root: DefaultRoot}},
		"runc's":           {marshal(t, &options.Options{SystemdCgroup: true}), Options{Root: DefaultRoot, SystemdCgroup: true}},
		"runc's, all": {
			marshal(t, &options.Options{
				Root: "/r", NoPivotRoot: true, NoNewKeyring: true, SystemdCgroup: true, IoUid: 1, IoGid: 2,
				CriuWorkPath: "/w", ShimCgroup: "/g", BinaryName: "sh",
			}),
			Options{
				Root: "/r", NoPivotRoot: true, NoNewKeyring: true, SystemdCgroup: true, IOUID: 1, IOGID: 2,
				CRIUWorkPath: "/w", ShimCgroup: "/g",
			},
		},
		"generic": {marshal(t, &runtimeoptions.Options{TypeUrl: "x"}), Options{Root: DefaultRoot}},
	} {
		got, err := Decode(c.any)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, a := range map[string]*anypb.Any{
		"a type that nobody knows": {TypeUrl: "example.com/Options", Value: []byte{8, 1}},
		"another known type":       marshal(t, &apitypes.Mount{Type: "overlay"}),
		"damaged options":          {TypeUrl: runcType, Value: []byte{0xff}},
		"no type":                  {Value: []byte{8, 1}},
	} {
		_, err := Decode(a)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), a.GetTypeUrl()) || !strings.Contains(err.Error(), runcType) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeMissingBinary(t *testing.T) {
	_, err := Decode(marshal(t, &options.Options{BinaryName: "no-runc"}))
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), `"no-runc"`) {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(runcType, []byte{8, 1})
	f.Add(runcType, []byte{0xff})
	f.Add(genericType, []byte("\x0a\x01x"))
	f.Add("", []byte{1})
	f.Fuzz(func(t *testing.T, url string, value []byte) {
		o, err := Decode(&anypb.Any{TypeUrl: url, Value: value})
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("unclassified: %v", err)
		}
		if err == nil && o.Root == "" {
			t.Error("no root")
		}
	})
}

func TestWriteAndRead(t *testing.T) {
	dir := t.TempDir()
	if got, err := Read(dir); err != nil || got != (Options{Root: DefaultRoot}) {
		t.Errorf("nothing was kept: %+v, %v", got, err)
	}
	want := Options{Root: "/r", NoPivotRoot: true, NoNewKeyring: true, SystemdCgroup: true, IOUID: 1, IOGID: 2, CRIUWorkPath: "/w", ShimCgroup: "/g"}
	for _, o := range []Options{want, {Root: "/other"}} {
		if err := o.Write(dir); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(dir); err != nil || got != o {
			t.Errorf("%+v, %v; want %+v", got, err, o)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := want.Write(filepath.Join(dir, "gone")); err == nil {
		t.Error("wrote to a bundle that does not exist")
	}
}

func TestReadDamaged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"root":"/r","ioUid":1}`))
	f.Add([]byte(`{"root":null}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := Read(dir)
		if err != nil {
			return
		}
		if err := o.Write(dir); err != nil {
			t.Fatal(err)
		}
		if again, err := Read(dir); err != nil || again != o {
			t.Errorf("%+v became %+v, %v", o, again, err)
		}
	})
}
