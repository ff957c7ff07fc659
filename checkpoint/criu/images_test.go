package criu

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// message encodes varints and strings by field number: m(1, 2, 13, "id").
func message(fields ...any) []byte {
	var b []byte
	for i := 0; i < len(fields); i += 2 {
		num := protowire.Number(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			b = protowire.AppendTag(b, num, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(v))
		case []byte:
			b = protowire.AppendTag(b, num, protowire.BytesType)
			b = protowire.AppendBytes(b, v)
		}
	}
	return b
}

// image is an image file of a kind with these messages.
func imageOf(kind string, msgs ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magicCommon)
	b = binary.LittleEndian.AppendUint32(b, magics[kind])
	for _, m := range msgs {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(m))), m...)
	}
	return b
}

// realInventory was written by CRIU 4.2.1 in a dump with network-lock skip.
const realInventory = "163131584e000000080210011a18080110011801200128013002380340044806500758086005200128013000580262006a2436333836393663332d323666612d343434622d626562312d343831643631363362343163"

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tree2 is a set of images as CRIU writes them: process 7 with thread 9, and its dead child 8.
func tree2(t testing.TB) map[string][]byte {
	alive := message(1, 1, 3, message(1, 1))
	return map[string][]byte{
		"inventory.img": unhex(t, realInventory),
		"pstree.img":    imageOf("pstree", message(1, 7, 2, 0, 5, 7, 5, 9), message(1, 8, 2, 7, 5, 1580483840)),
		"files.img":     imageOf("files", message(1, 1)),
		"core-7.img":    imageOf("core", alive),
		"core-9.img":    imageOf("core", message(1, 1)),
		"core-8.img":    imageOf("core", message(1, 1, 3, message(1, taskDead, 2, 3))),
		"ids-7.img":     imageOf("ids", message(1, 2, 2, 5)),
		"mm-7.img":      imageOf("mm", message(1, 1)),
		"fs-7.img":      imageOf("fs", message(1, 1)),
		"fdinfo-5.img":  imageOf("fdinfo"),
		// One present page, two of the parent's, one more that is present and lazy; old and new counts.
		"pagemap-7.img": imageOf("pagemap", message(1, 1), message(1, 4096, 2, 1, 4, 4), message(1, 8192, 2, 2, 3, 1), message(1, 65536, 2, 0, 4, 6, 5, 1)),
		"pages-1.img":   make([]byte, 2*os.Getpagesize()),
		"stats-dump":    []byte("not an image"),
	}
}

func plantImages(t testing.TB, files map[string][]byte) string {
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCheckImages(t *testing.T) {
	dir := plantImages(t, tree2(t))
	if err := CheckImages(dir); err != nil {
		t.Fatal(err)
	}
	if n, err := Processes(dir); err != nil || n != 2 {
		t.Errorf("%d processes, %v", n, err)
	}
}

// Each file is needed, and each must be whole.
func TestCheckImagesDamaged(t *testing.T) {
	whole := tree2(t)
	for name, data := range whole {
		if name == "stats-dump" {
			continue
		}
		for what, change := range map[string]func(map[string][]byte){
			"missing":     func(m map[string][]byte) { delete(m, name) },
			"empty":       func(m map[string][]byte) { m[name] = nil },
			"cut to head": func(m map[string][]byte) { m[name] = data[:6] },
			"magic":       func(m map[string][]byte) { m[name] = append([]byte("XXXXYYYY"), data[8:]...) },
		} {
			if name == "pages-1.img" && what == "magic" {
				continue // pages have none
			}
			t.Run(name+" "+what, func(t *testing.T) {
				files := maps.Clone(whole)
				change(files)
				err := CheckImages(plantImages(t, files))
				if !errors.Is(err, ErrImages) || !strings.Contains(err.Error(), name) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
	for what, tc := range map[string]struct {
		name string
		data []byte
		is   error
	}{
		"newer":             {"inventory.img", append(unhex(t, "1631315802000000"), message(1, 3)...), ErrNewer},
		"unknown lock":      {"inventory.img", append(unhex(t, "1631315804000000"), message(1, 2, 11, 9)...), ErrNewer},
		"no version":        {"inventory.img", unhex(t, "1631315800000000"), ErrImages},
		"cut record":        {"pstree.img", whole["pstree.img"][:len(whole["pstree.img"])-1], image.ErrTruncated},
		"process 0":         {"pstree.img", imageOf("pstree", message(2, 1)), ErrImages},
		"process too large": {"pstree.img", imageOf("pstree", message(1, maxPID+1)), ErrImages},
		"cut pagemap":       {"pagemap-7.img", whole["pagemap-7.img"][:len(whole["pagemap-7.img"])-2], image.ErrTruncated},
		"too many pages":    {"pagemap-7.img", imageOf("pagemap", message(1, 1), message(1, 0, 4, 4, 5, 1<<62)), ErrImages},
		"short pages":       {"pages-1.img", whole["pages-1.img"][1:], image.ErrTruncated},
		"state missing":     {"core-7.img", imageOf("core", message(1, 1)), ErrImages},
		"files missing":     {"ids-7.img", imageOf("ids", message(1, 2)), ErrImages},
	} {
		t.Run(what, func(t *testing.T) {
			files := maps.Clone(whole)
			files[tc.name] = tc.data
			err := CheckImages(plantImages(t, files))
			if !errors.Is(err, ErrImages) || !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.name) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCheckImagesFollowsNoLinks(t *testing.T) {
	dir := plantImages(t, tree2(t))
	if err := os.Rename(filepath.Join(dir, "mm-7.img"), filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("other", filepath.Join(dir, "mm-7.img")); err != nil {
		t.Fatal(err)
	}
	if err := CheckImages(dir); !errors.Is(err, ErrImages) {
		t.Errorf("got %v", err)
	}
}

func FuzzImages(f *testing.F) {
	for _, data := range tree2(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if version, err := parseInventory(data); err == nil && (version < 1 || version > maxVersion) {
			t.Errorf("version %d", version)
		}
		if len(data) < image.Header {
			return
		}
		recs, err := image.Records(data[image.Header:])
		if err != nil {
			return
		}
		var entries []image.Message
		for _, rec := range recs {
			m, err := image.Parse(rec)
			if err != nil {
				return
			}
			if task, err := readTask(m); err == nil && (task.pid < 1 || task.pid > maxPID) {
				t.Errorf("%+v", task)
			}
			// These must not panic; any answer will do.
			_, _ = isDead(m)
			_, _ = filesID(m)
			entries = append(entries, m)
		}
		if len(entries) == 0 {
			return
		}
		if _, n, err := countPages(entries); err == nil && n > maxPages {
			t.Errorf("%d pages", n)
		}
	})
}
