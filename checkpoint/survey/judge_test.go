package survey

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd-snap/snap/oci/spec"
)

// healthy is a container with nothing in the way: a server with a child.
func healthy() Snapshot {
	namespaces := map[string]string{"pid": "pid:[2]", "uts": "uts:[2]", "mnt": "mnt:[2]"}
	return Snapshot{
		Spec: &specs.Spec{
			Root:    &specs.Root{Path: "/rootfs"},
			Process: &specs.Process{Args: []string{"server"}, Cwd: "/"},
			Mounts:  []specs.Mount{{Destination: "/data", Type: "bind", Options: []string{"rbind"}}},
			Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace},
			}, MaskedPaths: []string{"/proc/kcore"}},
		},
		Processes: []Process{
			{PID: 10, Command: "server", State: 'S', Namespaces: namespaces, Files: []File{
				{FD: 3, Target: "/data/file", MountID: 2, TTY: -1}, {FD: 4, Target: "anon_inode:[eventpoll]", Type: fs.ModeIrregular, TTY: -1},
				{FD: 5, Target: "socket:[7]", Type: fs.ModeSocket, TTY: -1, Socket: &Socket{Inode: 7, Protocol: "TCP"}},
			}},
			{PID: 11, Command: "worker", State: 'S', Namespaces: namespaces},
		},
		Mounts: []Mount{
			{ID: 1, Device: "0:50", Type: "overlay", Point: "/"}, {ID: 2, Device: "8:1", Type: "ext4", Point: "/data"},
			{ID: 3, Device: "0:51", Type: "xfs", Point: "/data/below"}, {ID: 4, Device: "0:5", Type: "devtmpfs", Point: "/proc/kcore"}, {ID: 5, Device: "0:52", Type: "tmpfs", Point: "/tmp"},
		},
		MayRaiseLimits: true,
		Free:           1 << 40,
	}
}

func TestJudge(t *testing.T) {
	file := func(f File) func(*Snapshot) {
		f.FD = 9
		if f.TTY == 0 {
			f.TTY = -1
		}
		return func(s *Snapshot) { s.Processes[1].Files = append(s.Processes[1].Files, f) }
	}
	anon := func(name string) func(*Snapshot) {
		return file(File{Target: "anon_inode:" + name, Type: fs.ModeIrregular})
	}
	char := func(major, minor uint32) func(*Snapshot) {
		return file(File{Target: "/dev/it", Type: fs.ModeDevice | fs.ModeCharDevice, Major: major, Minor: minor})
	}
	socket := func(k Socket) func(*Snapshot) {
		return file(File{Target: "socket:[1]", Type: fs.ModeSocket, Socket: &k})
	}
	for name, c := range map[string]struct {
		change func(*Snapshot)
		// want is a finding as "level pid resource: words", its words cut to what is asked for;
		// empty for none.
		want string
	}{
		"healthy": {func(*Snapshot) {}, ""},

		"io_uring":    {anon("[io_uring]"), "problem 11 fd 9 (anon_inode:[io_uring]): it uses io_uring"},
		"userfaultfd": {anon("[userfaultfd]"), "problem 11 fd 9 (anon_inode:[userfaultfd]): it uses userfaultfd"},
		"perf":        {anon("[perf_event]"), "problem 11 fd 9 (anon_inode:[perf_event]): it has a descriptor of a kind"},
		"bpf program": {anon("bpf-prog"), "problem 11 fd 9 (anon_inode:bpf-prog): it has a descriptor of a kind"},
		"bpf map":     {anon("bpf-map"), "warning 11 fd 9 (anon_inode:bpf-map): it has a BPF map"},
		"eventfd":     {anon("[eventfd]"), ""},
		"semaphore": {file(File{Target: "anon_inode:[eventfd]", Type: fs.ModeIrregular, Counts: true}),
			"problem 11 fd 9 (anon_inode:[eventfd]): it uses an eventfd as a semaphore"},
		"timerfd":        {anon("[timerfd]"), ""},
		"signalfd":       {anon("[signalfd]"), ""},
		"watch, overlay": {file(File{Target: "anon_inode:inotify", Watches: []string{"8:1", "0:50"}}), "problem 11 fd 9 (anon_inode:inotify): it watches a file on the overlay /"},
		"watch, volume":  {file(File{Target: "anon_inode:inotify", Watches: []string{"8:1"}}), ""},

		"null":         {char(1, 3), ""},
		"fuse":         {char(10, 229), "problem 11 fd 9 (/dev/it): it has the character device 10:229 open"},
		"tun":          {char(10, 200), "problem 11 fd 9 (/dev/it): it has a network tunnel"},
		"tty":          {char(5, 0), ""},
		"foreign pts":  {char(136, 4), "problem 11 fd 9 (/dev/it): it uses a terminal whose master is outside"},
		"own terminal": {func(s *Snapshot) { char(136, 4)(s); s.Spec.Process.Terminal = true }, ""},
		"pts pair":     {func(s *Snapshot) { char(136, 4)(s); file(File{Target: "/dev/ptmx", TTY: 4})(s) }, ""},
		"high pts":     {func(s *Snapshot) { char(137, 4)(s); file(File{Target: "/dev/ptmx", TTY: 260})(s) }, ""},
		"block device": {file(File{Target: "/dev/sda", Type: fs.ModeDevice}), "problem 11 fd 9 (/dev/sda): it has a block device open"},

		"deleted":              {file(File{Target: "/x (deleted)", MountID: 1, Blocks: 1 << 20}), ""},
		"deleted, large":       {file(File{Target: "/x (deleted)", MountID: 1, Blocks: 300 << 20}), "problem 11 fd 9 (/x (deleted)): the open file was deleted and has 300 MiB, more than the 256 MiB"},
		"deleted, linked":      {file(File{Target: "/x (deleted)", MountID: 1, Links: 1}), ""},
		"deleted, of a volume": {file(File{Target: "/data/x (deleted)", MountID: 2, Links: 1}), "problem 11 fd 9 (/data/x (deleted)): the open file was deleted and has other names"},
		"memfd":                {file(File{Target: "/memfd:x (deleted)", Blocks: 300 << 20}), ""},
		"outside file":         {file(File{Target: "/etc/passwd", MountID: 99}), "problem 11 fd 9 (/etc/passwd): the open file lies outside"},
		"outside directory":    {file(File{Target: "/", Type: fs.ModeDir, MountID: 99}), "problem 11 fd 9 (/): the open file lies outside"},
		"own mounts": {func(s *Snapshot) {
			file(File{Target: "/x", MountID: 99})(s)
			s.Processes[1].Namespaces = map[string]string{"mnt": "mnt:[3]"}
		}, ""},
		"pipe": {file(File{Target: "pipe:[3]", Type: fs.ModeNamedPipe}), ""},

		"mptcp":     {socket(Socket{Inode: 1, Protocol: "MPTCPv6"}), "problem 11 fd 9 (MPTCPv6 socket): it has a multipath TCP socket"},
		"vsock":     {socket(Socket{Inode: 1, Protocol: "AF_VSOCK"}), "problem 11 fd 9 (AF_VSOCK socket): it has a socket of a kind"},
		"packet":    {socket(Socket{Inode: 1, Protocol: "PACKET"}), ""},
		"unknown":   {socket(Socket{Inode: 1}), ""},
		"connected": {socket(Socket{Inode: 1, Protocol: "TCP", Connected: true, Local: "a:1", Remote: "b:2"}), "note 11 fd 9 (TCP socket, a:1 to b:2): an open TCP connection is left out"},
		"tcp=refuse": {func(s *Snapshot) {
			socket(Socket{Inode: 1, Protocol: "TCP", Connected: true})(s)
			s.TCP = spec.TCPRefuse
		}, "problem 11 fd 9 (TCP socket,  to ): it holds a TCP connection"},
		"tcp=established": {func(s *Snapshot) {
			socket(Socket{Inode: 1, Protocol: "TCP", Connected: true})(s)
			s.TCP = spec.TCPEstablished
		}, "note 11 fd 9 (TCP socket,  to ): an open TCP connection is saved"},
		"unix":       {socket(Socket{Inode: 1, Protocol: "UNIX", Peer: 8}), "problem 11 fd 9 (UNIX socket): the other end"},
		"unix pair":  {socket(Socket{Inode: 1, Protocol: "UNIX", Peer: 7}), ""},
		"unix queue": {socket(Socket{Inode: 1, Protocol: "UNIX", Pending: true}), "warning 11 fd 9 (UNIX socket): its connection was not accepted"},

		"traced":     {func(s *Snapshot) { s.Processes[0].Tracer = 99 }, "problem 10 traced by process 99: a debugger"},
		"session":    {func(s *Snapshot) { s.Processes[1].ForeignSession = true }, "problem 11 session: it came from outside"},
		"state D":    {func(s *Snapshot) { s.Processes[1].State = 'D' }, "warning 11 state D: it is in an uninterruptible sleep"},
		"no right":   {func(s *Snapshot) { s.Processes[1].UID, s.MayRaiseLimits = 33, false }, "problem 11 uid 33: this node's root may not"},
		"right":      {func(s *Snapshot) { s.Processes[1].UID = 33 }, ""},
		"nested uts": {func(s *Snapshot) { s.Processes[1].Namespaces = map[string]string{"uts": "uts:[3]"} }, "problem 11 uts namespace: it made a namespace"},
		"exec":       {func(s *Snapshot) { s.Strangers = []Process{{PID: 12, Command: "sh"}} }, "note 12 : it was started with exec"},
		"sysv shm":   {func(s *Snapshot) { s.Processes[1].Mappings = []Mapping{{Path: "/SYSV00000000"}} }, ""},
		"host's shm": {func(s *Snapshot) {
			s.Spec.Linux.Namespaces = s.Spec.Linux.Namespaces[:2]
			s.Processes[1].Mappings = []Mapping{{Path: "/SYSV00000000"}}
		}, "problem 11 mapping /SYSV00000000: it has System V"},
		"ramfs":  {func(s *Snapshot) { s.Mounts = append(s.Mounts, Mount{Type: "ramfs", Point: "/mnt"}) }, "problem 0 mount /mnt: a file system of type ramfs"},
		"native": {func(s *Snapshot) { s.Mounts[0].Type = "ext4" }, "problem 0 mount /: its root file system is of type ext4"},
		"user ns": {func(s *Snapshot) {
			s.Spec.Linux.Namespaces = append(s.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		}, "problem 0 : it has a user namespace"},
		"host's pids": {func(s *Snapshot) { s.Spec.Linux.Namespaces = s.Spec.Linux.Namespaces[1:] }, "problem 0 : it shares the host's pid namespace"},
		"sandbox": {func(s *Snapshot) {
			s.Spec.Annotations = map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
		}, "problem 0 : it is a pod sandbox"},
		"no space":      {func(s *Snapshot) { s.Free = 1 << 20; s.Processes[0].Resident = 5 << 20 }, "warning 0 : its 2 processes have 5 MiB of memory, and 1 MiB are free"},
		"unknown space": {func(s *Snapshot) { s.Free = -1; s.Processes[0].Resident = 5 << 20 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := healthy()
			c.change(&s)
			findings := Judge(s)
			if c.want == "" {
				if len(findings) > 0 {
					t.Errorf("found %+v", findings)
				}
				return
			}
			if len(findings) != 1 {
				t.Fatalf("found %+v", findings)
			}
			f := findings[0]
			if got := fmt.Sprintf("%s %d %s: %s", f.Level, f.PID, f.Resource, f.Words); !strings.HasPrefix(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
			if Capturable(findings) == (f.Level == Problem) || (f.Level != Note) != (f.Remedy != "") {
				t.Errorf("capturable %v, remedy %q", Capturable(findings), f.Remedy)
			}
		})
	}
}

func TestJudgeCounts(t *testing.T) {
	s := healthy()
	for fd := range 5 {
		s.Processes[0].Files = append(s.Processes[0].Files, File{FD: 20 + fd, Target: "anon_inode:[io_uring]", TTY: -1})
	}
	s.Processes[1].Files = s.Processes[0].Files[len(s.Processes[0].Files)-1:]
	f := Judge(s)
	if len(f) != 2 || f[0].More != 4 || f[1].More != 0 || f[1].PID != 11 {
		t.Errorf("found %+v", f)
	}
}
