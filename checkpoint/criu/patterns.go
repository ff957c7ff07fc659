package criu

import (
	"strconv"
	"strings"
)

// pattern explains one kind of error line. In text, "*" stands for any characters;
// cause and remedy refer to what the stars matched as $1, $2, … Texts are those
// of CRIU 4.1 and 4.2; what varies between the two is left to a star.
type pattern struct{ text, cause, remedy string }

// explain finds the first pattern that fits the text of an error line.
func explain(text string) (cause, remedy string, ok bool) {
	for _, p := range patterns {
		if args, ok := match(p.text, text); ok {
			return fill(p.cause, args), fill(p.remedy, args), true
		}
	}
	return "", "", false
}

// isNoise says that an error line tells nothing about the cause: it is
// harmless, or only says which step failed.
func isNoise(text string) bool {
	for _, n := range noise {
		if _, ok := match(n, text); ok {
			return true
		}
	}
	return false
}

// match reports whether s contains the pattern, and what the stars stand for. Each star
// takes as little as possible; a star at the end takes the rest.
func match(pattern, s string) ([]string, bool) {
	parts := strings.Split(pattern, "*")
	i := strings.Index(s, parts[0])
	if i < 0 {
		return nil, false
	}
	s = s[i+len(parts[0]):]
	var args []string
	for n, part := range parts[1:] {
		if part == "" && n == len(parts)-2 {
			return append(args, s), true
		}
		arg, rest, ok := strings.Cut(s, part)
		if !ok {
			return nil, false
		}
		args, s = append(args, arg), rest
	}
	return args, true
}

// fill puts the arguments into a text, in one pass, so that an argument that
// looks like "$1" stays what it is.
func fill(text string, args []string) string {
	if len(args) == 0 {
		return text
	}
	var pairs []string
	for i, a := range args {
		pairs = append(pairs, "$"+strconv.Itoa(i+1), strings.TrimSpace(a))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

var noise = []string{
	"rlimit: Can't setup RLIMIT_NOFILE for self", // without CAP_SYS_RESOURCE; harmless
	"Dump files (pid: *) failed with",
	"Dump mappings (pid: *) failed with",
	"Collect mappings (pid: *) failed with",
	"Unable to open fd=* id=",
	"cgroupns not supported. This is not fatal.",
	"trim failed: @",              // a file that was deleted from a lower layer: CRIU copies it instead
	"cg: cgroupd: recv req error", // its other end has failed before
}

const (
	remedyRecapture = "capture it again, and remove this checkpoint with `snapctl rm`"
	remedyContents  = "the container's image, volumes and writable layer must hold the file as it was at the capture"
	remedyReport    = "capture again without the program that uses it"
)

// patterns is in the order of judgement: where two fit a line, the first counts.
var patterns = []pattern{
	// Anywhere.
	{"No space left on device", "the disk that takes the images is full", "free space, or hold the store smaller with `snapctl rm`"},
	{"Disk quota exceeded", "the quota of the directory that takes the images is used up", "raise it, or hold the store smaller with `snapctl rm`"},
	{"Cannot allocate memory", "CRIU found no memory", "CRIU runs in the container's cgroup: raise the container's memory limit, or free memory on the node"},
	{"Timeout reached. Try to interrupt", "the processes could not be stopped within CRIU's time limit", "try again when the node and its disks are less busy"},
	{"Unable to freeze cgroup *", "the freezer could not stop the container's cgroup $1", "a process in uninterruptible sleep (state D) prevents it: find it with ps"},
	{"vdso: Unexpected rt vDSO area bounds", "this CRIU is too old for this kernel", "install a newer criu; `snapctl doctor` checks it"},

	{"Can't get rlimit *: Operation not permitted", "CRIU lacks CAP_SYS_RESOURCE, without which it cannot read the limits of another user's processes", "let containerd run with all capabilities of root (snapctl doctor checks it), or the program as root"},

	// Dump: sockets.
	{"Connected TCP socket, consider using --tcp-established", "a process holds an established TCP connection", "capture with `snapctl create`, which leaves connections out, or close it before"},
	{"In-flight connection (*) for", "a TCP connection waits to be accepted or is being made", "capture with `snapctl create`, which leaves it out, or when the server has accepted it"},
	{"sockets: Can't get 1:16 opt", "this CRIU cannot save internet sockets on this kernel (6.16 or newer)", "install criu >= 4.2"},
	{"sockets: Can't get 1:34 opt", "this CRIU cannot save internet sockets on this kernel (6.16 or newer)", "install criu >= 4.2"},
	{"External socket is used. Consider using --ext-unix-sk", "a process has a Unix socket whose other end is outside of the container", "capture before the program connects to it, or let it connect anew afterwards"},
	{"Can't dump name-less external socket", "a process has a Unix socket whose other end is outside of the container", "capture before the program connects to it, or let it connect anew afterwards"},
	{"unix: Unix socket * with unreachable peer", "a process has a Unix socket whose other end is outside of the container", "capture before the program connects to it, or let it connect anew afterwards"},
	{"unix: Non-empty write queue on an in-flight socket", "a client of a Unix socket in the container has sent something, and was not accepted yet", "capture again when the server has accepted it"},
	{"unix: Dangling connection", "a process has a Unix socket whose connection nobody has accepted, outside of the container", "capture when it was accepted, or before the program connects"},
	{"Unknown socket collected (family *)", "a process holds a socket of a family that CRIU cannot save (number $1)", remedyReport},
	{"inet: Unsupported proto 262 for socket", "a process holds a multipath TCP socket, which Go's net.Listen makes by default", "start the program with GODEBUG=multipathtcp=0, or turn net.mptcp.enabled off"},
	{"inet: Unsupported proto * for socket", "a process holds a socket of a protocol that CRIU cannot save (number $1)", remedyReport},

	// Dump: files and devices.
	{"send_fds failed (-22)", "a process uses io_uring, which CRIU cannot save", "turn io_uring off in the program (for Node.js UV_USE_IO_URING=0), or forbid it by seccomp"},
	{"Can't dump file * of that type [*] (anon anon_inode:[userfaultfd])", "a process uses userfaultfd, which CRIU cannot save", "capture when it is no longer in use"},
	{"Can't dump file * of that type [*] (anon anon_inode:*)", "a process holds a descriptor ($1) of a kind that CRIU cannot save: $3", remedyReport},
	{"Can't dump file * of that type [*] (chr *)", "a process has the character device $3 open, which CRIU cannot save", "close it before the capture"},
	{"Can't dump file * of that type [*] (*)", "a process has a file open (descriptor $1) of a kind that CRIU cannot save: $3", remedyReport},
	{"tun: Net namespace is required to dump tun link", "a process has a network tunnel (/dev/net/tun) open, which CRIU cannot save here", "close it before the capture"},
	{"Can't dump ghost file * of * size, increase limit", "the deleted file $1, still open, has $2 bytes: more than the limit of 256 MiB for such files", "let the program close it, or capture earlier"},
	{"Can't create link remap for *. Use link-remap option", "the open file $1 was deleted or replaced, and has other names or lies in the image", "capture with `snapctl create`, which keeps it"},
	{"Can't lookup mount=* for fd=* path=*", "the file $3 is open or mapped, and lies outside of the container's mounts (mount $1)", "capture without it; a file that was passed in from outside, or a mount that was removed, cannot be found again"},
	{"Open files on overmounted mounts are not supported yet; mount=* fd=* path=*", "the open file $3 is hidden below a later mount", "close it before the capture"},
	{"fsnotify: *Can't dump that handle", "a process watches a file (inotify) that CRIU cannot find again, as on overlayfs", "watch a directory of a volume, or turn file watching off"},
	{"Some file locks are hold by dumping tasks", "a process holds a file lock", "capture with `snapctl create`, which keeps locks, or release it before"},
	{"tty: Found slave peer index * without correspond master peer", "a process uses a terminal whose master is outside of the container", "capture containers without a terminal, or with the one the runtime made"},
	{"pidfd pid * is not a part of process tree", "a process holds a pidfd of process $1, which is not part of the container", "close it before the capture"},
	{"doesn't live in IPC ns", "a process uses System V shared memory without an IPC namespace of its own", "run the container with its own IPC namespace"},
	{"has uprobes vma", "a process was probed with uprobes", "detach the tracing tool and restart the program"},

	// Dump: the tree.
	{"A session leader of *(*) is outside of its pid namespace", "process $1 came from outside (exec) and its session leader is not in the container", "end processes that were started with exec before the capture"},
	{"A session leader of zombie process *(*) is outside", "the ended process $1 came from outside (exec) and was not reaped", "let the container's first process reap its children, for example with an init"},
	{"The root process * is not a session leader", "the container's first process $1 is not a session leader: it was not started by a container runtime", "capture containers only"},
	{"zombie * (comm *) found while seizing", "process $1 ($2) cannot be stopped: a debugger or tracer (gdb, strace, a profiler) is attached, or it has just ended", "detach it before the capture"},
	{"Unseizable non-zombie * found", "process $1 cannot be traced: a debugger or tracer (gdb, strace, a profiler) is attached", "detach it before the capture"},
	{"Zombies with threads are not supported", "a process ended while its threads live on", "capture again in a moment"},
	{"Individually stopped threads not supported", "a single thread is stopped", "let it continue (SIGCONT) before the capture"},
	{"Dumping seccomp filters not supported", "the kernel does not tell the seccomp filters", "`snapctl doctor` checks the kernel"},
	{"seccomp: Can't fetch filter on tid_real", "the kernel does not tell a process's seccomp filter", "`snapctl doctor` checks the kernel"},
	{"Non unconfined selinux contexts not supported *", "SELinux confines the processes, which this CRIU cannot save ($1)", "use a criu built with SELinux support"},

	// Dump: mounts.
	{"mnt: Mount * * (master_id: *) has unreachable sharing", "the mount $2 shares its changes with one outside of the container", "mount it private"},
	{"is autodetected external mount", "a mount comes from outside of the container and was not declared", "mount it through the container's spec"},
	{"mnt: FS mnt * dev * root * unsupported id", "the file system mounted at $1 is of a kind that CRIU cannot save", "mount it through the container's spec, or unmount it before the capture"},
	{"* is a fuse mount but not external", "the program mounted a FUSE file system: $1", "mount it through the container's spec, or unmount it before the capture"},

	// Restore: files and mounts.
	{"Can't link *link_remap.* -> *: No such file", "the deleted file $3 was captured by a link that is no longer there", remedyRecapture},
	{"Can't open file * on restore: No such file or directory", "the file /$1 was open or mapped at the capture and is missing now", remedyContents},
	{"Can't open file *: No such file or directory", "the file /$1 was open or mapped at the capture and is missing now", remedyContents},
	{"File * has bad size * (expect *)", "the file /$1 changed since the capture: it has $2 bytes and had $3", remedyContents},
	{"File * has bad mode * (expect *)", "the file /$1 changed since the capture: its mode is $2 and was $3", remedyContents},
	{"File * has bad build-ID", "the program file /$1 was replaced since the capture", remedyContents},
	{"Can't stat mountpoint */mnt-*/*: No such file or directory", "the place of a mount is missing: /$3", "the new container must have the mounts of the captured one, and its root file system their mount points"},
	{"Can't stat mountpoint *: No such file or directory", "the place of a mount is missing: $1", "the new container must have the mounts of the captured one, and its root file system their mount points"},
	{"mnt: Unable to bind-mount * to *: No such file or directory", "the source or the place of a mount is missing: $1 at $2", "the new container must have the mounts of the captured one"},
	{"mnt: Can't restore ext mount (*)", "a mount from outside of the container is missing in the new one", "the new container must have the mounts of the captured one"},
	{"No mapping for * mountpoint", "the mount $1 of the captured container is missing in the new one", "the new container must have the mounts of the captured one"},

	// Restore: sockets, pids, locks.
	{"inet: Can't bind inet socket * Address already in use", "an address that the program listens on is in use in this network namespace, or still held by connections of its former run", "end the other program, or wait a minute"},
	{"inet: Can't bind inet socket * Cannot assign requested address", "an address that the program listens on does not exist in this network namespace", "let the program listen on all addresses, or give the container the old address"},
	{"unix: Can't bind id * addr *: No such file or directory", "the directory of the Unix socket $2 is missing", remedyContents},
	{"Can't fork for *: File exists", "process id $1 is taken: processes get back the ids that they had", "give the container its own pid namespace; after a failed restore, wait for its processes to be gone"},
	{"Pid * do not match expected *", "process id $2 is taken: processes get back the ids that they had", "give the container its own pid namespace"},
	{"Can't fork for *: Resource temporarily unavailable", "the limit of processes does not allow process $1", "raise the container's pids limit"},
	{"Need to set the --tcp-close options", "the checkpoint was captured with tcp=close, and the restore does not allow that", "restore it with the runtime that captured it"},
	{"Network is unreachable", "a connection of the program cannot be restored: the network is not there", "capture again with `snapctl create`, which leaves connections out"},

	// Restore: images.
	{"Not supported images version *", "the images are of a format ($1) that this CRIU does not know: a newer CRIU wrote them", "install the criu that captured them or a newer one"},
	{"Head magic doesn't match for *", "the image file $1 is damaged", remedyRecapture},
	{"Magic doesn't match for *", "the image file $1 is damaged", remedyRecapture},
	{"Read * bytes while * expected from *: ", "the image file $3 is cut short", remedyRecapture},
	{"Unexpected EOF on (empty-image)", "an image file is missing", remedyRecapture},
	{"Unexpected EOF on *", "the image file $1 is cut short", remedyRecapture},
	{"Failed parsing * message from *", "the image file $2 is damaged", remedyRecapture},
	{"Can't read pages data", "the file with the memory's pages is missing or cut short", remedyRecapture},
	{"No IDS for root task", "an image file is missing (ids)", remedyRecapture},
	{"Too old image, no longer supported", "the images are of a CRIU that is too old", remedyRecapture},
	{"Missing required plugin: *", "the checkpoint needs CRIU's plugin $1, which this node does not have", "install it beside criu"},

	// Restore: the host.
	{"CPU instruction capabilities do not match", "this node's processor lacks features of the one where the checkpoint was captured", "restore on a like node, or capture on this one"},
	{"CPU capabilities do not match", "this node's processor lacks features of the one where the checkpoint was captured", "restore on a like node, or capture on this one"},
	{"FPU feature required by image is not supported", "this node's processor lacks floating point features of the one where the checkpoint was captured", "restore on a like node, or capture on this one"},
	{"CPU xsave * mismatch", "this node's processor saves its registers in another size than the one where the checkpoint was captured", "restore on a like node, or capture on this one"},
	{"CPU xfeatures has unsupported bits", "this node's processor lacks register sets of the one where the checkpoint was captured", "restore on a like node, or capture on this one"},
	{"Core march mismatch", "the checkpoint is of another processor architecture", "restore on a like node"},
	{"cg: Can't make cgroup dir *: *", "the cgroup $1 cannot be made: $2", "let the runtime place the container: dump and restore with cgroups ignored"},
	{"cg: Cgroup dir * doesn't exist", "the cgroup $1 of the captured container does not exist", "let the runtime place the container: dump and restore with cgroups ignored"},
	{"cg: CG paths mismatch: *", "the cgroups differ from those at the capture: $1", "let the runtime place the container: dump and restore with cgroups ignored"},
	{"mismatched lsm types", "this node's security module (AppArmor, SELinux) is not the one of the capture", "restore on a like node, or capture on this one"},
	{"can't write lsm profile", "the security profile (AppArmor, SELinux) of the captured processes is not loaded or not allowed here", "load the profile that the container had at the capture"},
	{"seccomp: SECCOMP_SET_MODE_FILTER returned *", "the kernel refused a captured seccomp filter ($1)", "restore on a node with the kernel of the capture"},
	{"seccomp: Corrupted filter", "the image of the seccomp filters is damaged", remedyRecapture},
	{"Can't make userns id", "the user namespace of the captured container cannot be made again", "containers with a user namespace are booted"},
	{"failed to start usernsd", "CRIU could not work in the container's user namespace", "containers with a user namespace are booted"},
	{"Can't fstat inherit fd *: Bad file descriptor", "the descriptor that CRIU was to inherit is not open ($1)", "this is a fault of the runtime"},
	{"Invalid value for --network-lock: *", "CRIU does not know the network lock $1", "install criu >= 4.0"},
	{"killed by signal 11: Segmentation fault", "CRIU crashed while it restored a process, as it does when an image file is missing", "`snapctl doctor` checks the images"},
}
