package criu

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"time"
)

const (
	magicService = 0x55105940
	magicStats   = 0x57093306
)

// Stats is what CRIU says a dump or a restore cost (images/stats.proto).
type Stats struct {
	// Dump is that of a dump; nil in stats-restore.
	Dump *DumpStats
	// Restore is that of a restore; nil in stats-dump.
	Restore *RestoreStats
}

// DumpStats is what a dump cost. Frozen contains MemDump; MemWrite is
// the part of it in which the pages were written.
type DumpStats struct {
	Freezing, Frozen, MemDump, MemWrite time.Duration
	// PagesScanned counts the pages looked at, PagesWritten those saved.
	PagesScanned, PagesWritten uint64
}

// RestoreStats is what a restore cost. Restore is the time from the beginning until the
// processes ran, of which Forking was spent to create them.
type RestoreStats struct {
	Forking, Restore time.Duration
	// PagesRestored counts pages copied into memory.
	PagesRestored uint64
}

// ReadStats reads stats-dump or stats-restore in dir, the working directory of the
// call. Errors wrap ErrImages.
func ReadStats(dir, name string) (Stats, error) {
	data, err := readRegular(filepath.Join(dir, name), 1<<20)
	if err != nil {
		return Stats{}, unusable(name, err)
	}
	s, err := parseStats(data)
	if err != nil {
		return Stats{}, unusable(name, err)
	}
	return s, nil
}

func parseStats(data []byte) (Stats, error) {
	if len(data) < header {
		return Stats{}, errTruncated
	}
	if binary.LittleEndian.Uint32(data) != magicService || binary.LittleEndian.Uint32(data[4:]) != magicStats {
		return Stats{}, errMagic
	}
	rec, _, err := record(data[header:])
	if err != nil {
		return Stats{}, err
	}
	top, err := fields(rec)
	if err != nil {
		return Stats{}, err
	}
	var s Stats
	for _, f := range top {
		v, err := numbers(f.bytes)
		if err != nil {
			return Stats{}, err
		}
		switch f.num {
		case 1:
			s.Dump = &DumpStats{
				Freezing: micros(v[1]), Frozen: micros(v[2]), MemDump: micros(v[3]), MemWrite: micros(v[4]),
				PagesScanned: v[5], PagesWritten: v[7],
			}
		case 2:
			s.Restore = &RestoreStats{Forking: micros(v[3]), Restore: micros(v[4]), PagesRestored: v[5]}
		}
	}
	if s.Dump == nil && s.Restore == nil {
		return Stats{}, fmt.Errorf("no statistics of a dump or a restore")
	}
	return s, nil
}

// numbers returns the values of a message's varints by their field number.
func numbers(msg []byte) (map[int]uint64, error) {
	fs, err := fields(msg)
	if err != nil {
		return nil, err
	}
	v := map[int]uint64{}
	for _, f := range fs {
		v[int(f.num)] = f.value
	}
	return v, nil
}

// micros turns CRIU's 32 bits of microseconds into a duration.
func micros(n uint64) time.Duration { return time.Duration(uint32(n)) * time.Microsecond }
