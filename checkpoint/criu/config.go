package criu

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// TCP says what becomes of established TCP connections.
type TCP string

const (
	// TCPRefuse makes a dump fail if there is an established connection.
	TCPRefuse TCP = ""
	// TCPClose leaves connections out of the checkpoint. At dump they are not touched:
	// of a task that goes on running the connections go on, too. In a restored task
	// the descriptors are there, and the sockets behind them closed. Listening sockets
	// are restored as they were. A checkpoint that was dumped with it is restorable only
	// with it ("Need to set the --tcp-close options").
	//
	// A dump that ends the task closes its connections, whose remains (TIME_WAIT) keep
	// the port: a listener without SO_REUSEADDR is then not restorable in the same
	// network namespace for a minute ("Address already in use").
	TCPClose TCP = "tcp-close"
	// TCPEstablished saves and restores connections with their queues. It needs
	// the same addresses at restore, and no two clones can have it.
	TCPEstablished TCP = "tcp-established"
)

// NetworkLock is how CRIU silences the network during a dump, and until the
// restore; see the package comment for what each leaves behind. It takes effect
// at dump only: a restore follows what the images say.
type NetworkLock string

const (
	// LockDefault leaves the choice to CRIU: iptables.
	LockDefault NetworkLock = ""
	// LockSkip locks nothing and leaves nothing behind. For TCPClose.
	LockSkip NetworkLock = "skip"
	// LockNFTables uses one nftables table, named after CRIU's run id.
	LockNFTables NetworkLock = "nftables"
	// LockIPTables uses iptables rules; it needs the iptables programs.
	LockIPTables NetworkLock = "iptables"
)

// ExternalFile names an open or mapped file outside the container's mounts,
// which a dump then records by name instead of failing with "Can't lookup mount".
type ExternalFile struct {
	// MountID is the mount's id as /proc/PID/fdinfo/FD says, in the mount namespace
	// from which the file was opened.
	MountID uint64
	// Inode is the file's inode number.
	Inode uint64
}

// Key is the name under which images know the file: "file[MNT:INODE]", both
// in hexadecimal. A restore finds the file through an InheritFD with this Key.
func (e ExternalFile) Key() string { return fmt.Sprintf("file[%x:%x]", e.MountID, e.Inode) }

// InheritFD gives an open descriptor to a restore in the place of a file.
type InheritFD struct {
	// FD is the descriptor's number in the process that becomes criu; it must be
	// open there, or CRIU refuses to start.
	FD int
	// Key is the file's name in the images: an ExternalFile's Key, or a path without
	// the leading slash.
	Key string
}

// Config is the config file of one call of CRIU: what libcontainer's own options
// do not offer. It is named to libcontainer by the label "org.criu.config", and overrides
// both the options that libcontainer sends and the host's /etc/criu/runc.conf. The
// zero value is an empty file: CRIU's own defaults.
//
// CRIU reads "name value" per line and ends with an error for a name that it does not
// know ("unrecognized option"); what follows a name that takes no value is silently
// ignored. All options were tried with 4.1.1 and 4.2.1, which accept
// them at dump as well as at restore.
type Config struct {
	// TCP is what becomes of established connections. Use the same at dump and restore.
	TCP TCP
	// NetworkLock is how the network is silenced at dump; ignored at restore.
	NetworkLock NetworkLock
	// GhostLimit is the size in bytes up to which an open file that was deleted is
	// carried in the checkpoint; 0 is CRIU's default of 1 MiB, above which a dump fails.
	// It is only for dumps.
	GhostLimit int64
	// SkipInFlight leaves connections out that wait to be accepted, or that are being
	// accepted: of a busy server there is often one, and a dump fails without it, with TCPClose
	// too. At dump they are not touched: a task that goes on accepts them.
	SkipInFlight bool
	// FileLocks saves and restores flock and POSIX locks; without it a dump of a
	// process that holds one fails. It is needed at restore too: without
	// it a restore succeeds and the locks are lost. CRIU calls it safe only if no process outside of
	// the tree shares the locks: a restore waits for ever for a flock that somebody else holds.
	FileLocks bool
	// LinkRemap gives a deleted file that has other links a name again ("link_remap.N",
	// beside the old name) in the container's file system, and takes a file that was deleted from
	// a lower layer of an overlay for one without a name. A dump that leaves the task
	// running removes that name when it ends, and the checkpoint is then not restorable
	// ("Can't link …/link_remap.N"), unless the copy of the file system gets it (LinkRemaps). A
	// restore removes it. It is for dumps.
	LinkRemap bool
	// External lists files that a dump records by name.
	External []ExternalFile
	// InheritFD lists descriptors that a restore uses instead of files.
	InheritFD []InheritFD
	// Verbosity is the level of the log, 1 (errors) to 4 (debug); 0 leaves it as it is.
	// Diagnose needs 1, and says more from 3 on.
	Verbosity int
}

// DefaultGhostLimit is enough for the deleted files of usual programs (temporary files
// of compilers, mapped arenas), and small enough to bound a checkpoint, and the pause in which they
// are copied: 256 MiB on the disk each, holes not counted. Above it the capture is refused.
const DefaultGhostLimit = 256 << 20

// DefaultConfig is the widest set of options that is safe for a checkpoint of
// a running container: connections closed, nothing left in its network namespace or its file
// system, file locks kept. It serves both dump and restore.
func DefaultConfig() Config {
	return Config{TCP: TCPClose, SkipInFlight: true, NetworkLock: LockSkip, GhostLimit: DefaultGhostLimit, FileLocks: true, LinkRemap: true}
}

// Encode returns the file's content, or an error that names every value that
// is not valid.
func (c Config) Encode() ([]byte, error) {
	var b strings.Builder
	var errs []error
	flag := func(name string, on bool) {
		if on {
			b.WriteString(name + "\n")
		}
	}
	switch c.TCP {
	case TCPRefuse, TCPClose, TCPEstablished:
		flag(string(c.TCP), c.TCP != TCPRefuse)
	default:
		errs = append(errs, fmt.Errorf("TCP %q: use %q, %q or nothing", c.TCP, TCPClose, TCPEstablished))
	}
	switch c.NetworkLock {
	case LockDefault, LockSkip, LockNFTables, LockIPTables:
		flag("network-lock "+string(c.NetworkLock), c.NetworkLock != LockDefault)
	default:
		errs = append(errs, fmt.Errorf("NetworkLock %q: use %q, %q, %q or nothing", c.NetworkLock, LockSkip, LockNFTables, LockIPTables))
	}
	if c.GhostLimit < 0 {
		errs = append(errs, fmt.Errorf("GhostLimit %d: use a number of bytes, or 0", c.GhostLimit))
	}
	flag("ghost-limit "+strconv.FormatInt(c.GhostLimit, 10), c.GhostLimit > 0)
	flag("skip-in-flight", c.SkipInFlight)
	flag("file-locks", c.FileLocks)
	flag("link-remap", c.LinkRemap)
	for _, e := range c.External {
		flag("external "+e.Key(), true)
	}
	taken := map[int]bool{}
	for _, i := range c.InheritFD {
		switch {
		case i.FD < 3:
			errs = append(errs, fmt.Errorf("InheritFD %d: use a descriptor above the standard ones", i.FD))
		case taken[i.FD]:
			errs = append(errs, fmt.Errorf("InheritFD %d: given twice", i.FD))
		case !validKey(i.Key):
			errs = append(errs, fmt.Errorf("InheritFD %d: Key %q: use 1 to %d printable ASCII characters, without spaces, quotes, backslashes and #", i.FD, clip(i.Key, 60), maxKey))
		}
		taken[i.FD] = true
		flag(fmt.Sprintf("inherit-fd fd[%d]:%s", i.FD, i.Key), true)
	}
	if c.Verbosity < 0 || c.Verbosity > 4 {
		errs = append(errs, fmt.Errorf("log level (Verbosity) %d: use 1 to 4, or 0", c.Verbosity))
	}
	// Without "=" CRIU takes the number for a stray word and raises the level by one.
	flag("verbosity="+strconv.Itoa(c.Verbosity), c.Verbosity > 0)
	if len(errs) > 0 {
		return nil, fmt.Errorf("encode CRIU config: %w", errors.Join(errs...))
	}
	return []byte(b.String()), nil
}

const maxKey = 1024

// validKey says whether CRIU's parser would read the key as one word, unchanged.
func validKey(s string) bool {
	if s == "" || len(s) > maxKey {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte(`"'\#`, c) >= 0 {
			return false
		}
	}
	return true
}

// Write puts the file at path with mode 0600, complete or not at all. The
// file must stay until CRIU has ended.
func (c Config) Write(path string) error {
	data, err := c.Encode()
	if err != nil {
		return err
	}
	if err := writeFile(path, data); err != nil {
		return fmt.Errorf("write CRIU config %s: %w", path, err)
	}
	return nil
}
