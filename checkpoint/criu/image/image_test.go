package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// entry is a message with fields of all types that CRIU uses, one of them twice.
func entry() []byte {
	var b []byte
	b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), 7)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 2, protowire.Fixed64Type), 1<<60)
	b = protowire.AppendFixed32(protowire.AppendTag(b, 3, protowire.Fixed32Type), 9)
	b = protowire.AppendString(protowire.AppendTag(b, 4, protowire.BytesType), "first")
	b = protowire.AppendString(protowire.AppendTag(b, 4, protowire.BytesType), "last")
	return b
}

func encoded(recs ...[]byte) []byte {
	im := Image{Magic: []byte("magic567"), Records: recs}
	return im.Encode()
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("good.img", encoded(entry(), nil, []byte("x")))
	im, err := Read(dir, "good.img")
	if err != nil || string(im.Magic) != "magic567" || len(im.Records) != 3 || !bytes.Equal(im.Encode(), encoded(entry(), nil, []byte("x"))) {
		t.Errorf("%+v, %v", im, err)
	}
	whole := encoded(entry())
	write("empty.img", whole[:Header])
	write("cut.img", whole[:len(whole)-1])
	write("length.img", whole[:Header+3])
	write("short.img", whole[:Header-1])
	write("large.img", nil)
	if err := os.Truncate(filepath.Join(dir, "large.img"), MaxSize+1); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("good.img", filepath.Join(dir, "link.img")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.img"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"empty.img": "truncated", "cut.img": "record 0: truncated", "length.img": "record 0: truncated", "short.img": "truncated",
		"large.img": "more than", "link.img": "symbolic links", "fifo.img": "no regular file", "none.img": "none.img is missing",
	} {
		_, err := Read(dir, name)
		if !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		if truncated := strings.Contains(want, "truncated"); truncated != errors.Is(err, ErrTruncated) {
			t.Errorf("%s: truncated is %t: %v", name, !truncated, err)
		}
	}
}

func TestMessage(t *testing.T) {
	m, err := Parse(entry())
	if err != nil || !bytes.Equal(m.Encode(), entry()) {
		t.Fatalf("%+v, %v", m, err)
	}
	if m.Number(1) != 7 || string(m.Text(4)) != "last" || m.Number(5) != 0 || m.Text(5) != nil || m.Find(5) != nil {
		t.Errorf("%+v", m)
	}
	m.Set(1, 8)
	m.Set(6, 1<<40)
	m.SetText(4, []byte("new"))
	m.SetText(7, nil)
	m = m.Without(3)
	again, err := Parse(m.Encode())
	if err != nil || again.Number(1) != 8 || again.Number(6) != 1<<40 || string(again.Text(4)) != "new" || again.Find(7) == nil || again.Find(3) != nil {
		t.Errorf("%+v, %v", again, err)
	}
	if len(again.Without(4)) != len(again)-2 {
		t.Errorf("%+v", again.Without(4))
	}
	for _, damaged := range [][]byte{{0x08}, {0x0a, 5, 1}, {0x80}, {0x0d, 1}, {0}} {
		if m, err := Parse(damaged); err == nil {
			t.Errorf("%x: %+v", damaged, m)
		}
	}
}

// FuzzParse: whatever is read and written is the same when it is read again.
func FuzzParse(f *testing.F) {
	f.Add(encoded(entry(), entry()))
	f.Fuzz(func(t *testing.T, data []byte) {
		im, err := Split(data)
		if err != nil {
			return
		}
		if !bytes.Equal(im.Encode(), data) {
			t.Fatalf("%x became %x", data, im.Encode())
		}
		for _, rec := range im.Records {
			m, err := Parse(rec)
			if err != nil {
				continue
			}
			again, err := Parse(m.Encode())
			if err != nil || len(again) != len(m) {
				t.Fatalf("%+v became %+v, %v", m, again, err)
			}
			for i := range m {
				if again[i].Num != m[i].Num || again[i].Value != m[i].Value || !bytes.Equal(again[i].Bytes, m[i].Bytes) {
					t.Fatalf("%+v became %+v", m[i], again[i])
				}
			}
		}
	})
}
