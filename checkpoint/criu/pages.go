package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd-snap/snap/checkpoint/criu/image"
)

// Flags of a pagemap_entry (criu/include/image.h).
const (
	pageParent  = 1 << 0
	pagePresent = 1 << 2
)

// maxPages bounds the pages of one area, so that sums cannot overflow: 4 PiB of them.
const maxPages = 1 << 40

// checkPages compares each pages file's length with what the pagemaps say that it
// holds. CRIU spins for ever on a file that is too short.
func checkPages(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImages, err)
	}
	pages := map[uint64]uint64{}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, "pagemap-") || !strings.HasSuffix(name, ".img") {
			continue
		}
		entries, err := messages(dir, name)
		if err != nil {
			return err
		}
		id, n, err := countPages(entries)
		if err != nil {
			return image.Unusable(name, err)
		}
		pages[id] += n
	}
	for id, n := range pages {
		if n == 0 {
			continue
		}
		name := fmt.Sprintf("pages-%d.img", id)
		f, size, err := image.Open(filepath.Join(dir, name))
		if err != nil {
			return image.Unusable(name, err)
		}
		f.Close()
		if want := n * uint64(os.Getpagesize()); uint64(size) < want {
			return image.Unusable(name, fmt.Errorf("%w: %d bytes of %d", image.ErrTruncated, size, want))
		}
	}
	return nil
}

// countPages returns the number of the pages file and how many pages are in it: a
// pagemap_head and pagemap_entry messages (images/pagemap.proto).
func countPages(entries []image.Message) (id, pages uint64, err error) {
	head := entries[0]
	if len(head) == 0 || head[0].Num != 1 {
		return 0, 0, errors.New("no number of the pages file")
	}
	for _, e := range entries[1:] {
		n, err := pagesOf(e)
		if err != nil {
			return 0, 0, err
		}
		if pages += n; pages > maxPages {
			return 0, 0, fmt.Errorf("%d pages cannot be", pages)
		}
	}
	return head[0].Value, pages, nil
}

// pagesOf returns how many pages of the pages file an entry takes. Pages of the
// parent images and pages that are only known to be zero take none.
func pagesOf(entry image.Message) (uint64, error) {
	var compat, n, flags uint64
	var flagged, counted, parent bool
	for _, f := range entry {
		switch f.Num {
		case 2:
			compat = f.Value
		case 3:
			parent = f.Value != 0
		case 4:
			flags, flagged = f.Value, true
		case 5:
			n, counted = f.Value, true
		}
	}
	if !counted {
		n = compat
	}
	if n > maxPages {
		return 0, fmt.Errorf("%d pages cannot be", n)
	}
	if flagged && flags&(pagePresent|pageParent) != pagePresent || parent {
		return 0, nil
	}
	return n, nil
}
