package criu

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// magicUTS is the kind of utsns-*.img.
const magicUTS = 0x54473203

// maxName is the length of the kernel's host and domain names (__NEW_UTS_LEN).
const maxName = 64

// Stage fills dst, an empty directory on the file system of src, with images
// for one restore: hard links to those in src, which stay as they are, but for
// the names of the UTS namespace, which are hostname and domainname. CRIU sets
// the names that it finds there also in a namespace that it joins, before the
// restored program runs.
//
// Symbolic links would not do: CRIU opens some images when it is already inside
// the container's root.
func Stage(dst, src, hostname, domainname string) error {
	if len(hostname) > maxName || len(domainname) > maxName {
		return fmt.Errorf("stage images: host name %q or domain name %q is longer than %d bytes", hostname, domainname, maxName)
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		return fmt.Errorf("stage images: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "utsns-") && strings.HasSuffix(name, ".img") {
			err = os.WriteFile(filepath.Join(dst, name), utsImage(hostname, domainname), 0o600)
		} else {
			err = os.Link(filepath.Join(src, name), filepath.Join(dst, name))
		}
		if err != nil {
			return fmt.Errorf("stage images: %w", err)
		}
	}
	return nil
}

// utsImage is a utsns image: one entry with the node name and the domain name
// (images/utsns.proto).
func utsImage(hostname, domainname string) []byte {
	var m []byte
	m = protowire.AppendTag(m, 1, protowire.BytesType)
	m = protowire.AppendString(m, hostname)
	m = protowire.AppendTag(m, 2, protowire.BytesType)
	m = protowire.AppendString(m, domainname)
	var b []byte
	b = binary.LittleEndian.AppendUint32(b, magicCommon)
	b = binary.LittleEndian.AppendUint32(b, magicUTS)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m)))
	return append(b, m...)
}
