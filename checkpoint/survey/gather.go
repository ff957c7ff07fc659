package survey

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/containerd-snap/snap/oci/spec"
)

const proc = "/proc"

// capSysResource is the number of CAP_SYS_RESOURCE.
const capSysResource = 24

// Gather looks at the container whose first process is init. store is the directory of
// the checkpoint store, for its free space; tcp is the container's setting. Processes that end meanwhile are left out;
// the error wraps os.ErrNotExist if init is one of them.
func Gather(oci *specs.Spec, tcp spec.TCP, init int, store string) (Snapshot, error) {
	s := Snapshot{Spec: oci, TCP: tcp, Free: -1, MayRaiseLimits: mayRaiseLimits()}
	var fs unix.Statfs_t
	if err := unix.Statfs(store, &fs); err == nil {
		s.Free = int64(fs.Bavail) * int64(fs.Bsize) //nolint:unconvert // its type depends on the architecture
	}
	stats, err := allStats()
	if err != nil {
		return s, err
	}
	first, ok := stats[init]
	if !ok {
		return s, fmt.Errorf("look at process %d: %w", init, os.ErrNotExist)
	}
	peers := unixPeers(init)
	if s.Mounts, err = mounts(init); err != nil {
		return s, fmt.Errorf("look at process %d: %w", init, err)
	}
	children := map[int][]stat{}
	for _, st := range stats {
		children[st.parent] = append(children[st.parent], st)
	}
	tree := map[int]bool{}
	var walk func(stat)
	walk = func(st stat) {
		tree[st.pid] = true
		s.Processes = append(s.Processes, lookAt(st, peers))
		slices.SortFunc(children[st.pid], func(a, b stat) int { return a.pid - b.pid })
		for _, c := range children[st.pid] {
			walk(c)
		}
	}
	walk(first)
	inside := s.Processes[0].Namespaces["pid"]
	ours, _ := os.Readlink(filepath.Join(proc, "self/ns/pid"))
	if inside == "" || inside == ours {
		return s, nil // the host's: nobody can be told from a stranger
	}
	for _, pid := range slices.Sorted(keys(stats)) {
		ns, err := os.Readlink(path(pid, "ns/pid"))
		if err == nil && ns == inside && !tree[pid] {
			s.Strangers = append(s.Strangers, Process{PID: pid, Command: stats[pid].command})
		}
	}
	return s, nil
}

func keys(m map[int]stat) func(func(int) bool) {
	return func(yield func(int) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func path(pid int, elem string) string { return filepath.Join(proc, strconv.Itoa(pid), elem) }

// mayRaiseLimits looks at our own capabilities, which a runtime started like us has.
func mayRaiseLimits() bool {
	status, err := os.ReadFile(filepath.Join(proc, "self/status"))
	if err != nil {
		return true
	}
	eff, err := strconv.ParseUint(field(string(status), "CapEff"), 16, 64)
	return err != nil || eff&(1<<capSysResource) != 0
}

// stat is what /proc/PID/stat says.
type stat struct {
	pid, parent int
	command     string
	state       byte
}

func allStats() (map[int]stat, error) {
	dir, err := os.Open(proc)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := map[int]stat{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		raw, err := os.ReadFile(path(pid, "stat"))
		if err != nil {
			continue // it ended
		}
		if st, ok := parseStat(string(raw)); ok {
			all[pid] = st
		}
	}
	return all, nil
}

// parseStat reads "PID (COMMAND) STATE PARENT …"; the command may hold
// anything.
func parseStat(line string) (stat, bool) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return stat{}, false
	}
	rest := strings.Fields(line[end+1:])
	if len(rest) < 2 {
		return stat{}, false
	}
	st := stat{command: line[open+1 : end], state: rest[0][0]}
	var errs [2]error
	st.pid, errs[0] = strconv.Atoi(strings.TrimSpace(line[:open]))
	st.parent, errs[1] = strconv.Atoi(rest[1])
	return st, errors.Join(errs[:]...) == nil
}

// lookAt gathers what concerns one process. What cannot be read is left out: the process
// is about to end.
func lookAt(st stat, peers map[uint64]uint64) Process {
	p := Process{PID: st.pid, Command: st.command, State: st.state, Namespaces: map[string]string{}}
	if raw, err := os.ReadFile(path(p.PID, "status")); err == nil {
		p.status(string(raw))
	}
	p.Tracer = tracer(p.PID, p.Tracer)
	for _, ns := range append(slices.Clone(nested), "mnt") {
		if id, err := os.Readlink(path(p.PID, "ns/"+ns)); err == nil {
			p.Namespaces[ns] = id
		}
	}
	p.files(peers)
	if raw, err := os.ReadFile(path(p.PID, "maps")); err == nil {
		p.Mappings = parseMaps(string(raw))
	}
	return p
}

// field is the first word of a line "NAME: WORD …".
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				return words[0]
			}
		}
	}
	return ""
}

func (p *Process) status(raw string) {
	number := func(name string) int {
		n, err := strconv.Atoi(field(raw, name))
		if err != nil {
			return 0
		}
		return n
	}
	p.Tracer, p.UID = number("TracerPid"), number("Uid")
	p.Resident = int64(number("VmRSS")) << 10
	for line := range strings.Lines(raw) {
		if rest, ok := strings.CutPrefix(line, "NSsid:"); ok {
			words := strings.Fields(rest)
			p.ForeignSession = len(words) > 1 && words[len(words)-1] == "0"
		}
	}
}

// tracer looks for who traces a thread of the process.
func tracer(pid, known int) int {
	if known != 0 {
		return known
	}
	tasks, err := os.ReadDir(path(pid, "task"))
	if err != nil {
		return 0
	}
	for _, task := range tasks {
		raw, err := os.ReadFile(path(pid, "task/"+task.Name()+"/status"))
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(field(string(raw), "TracerPid")); err == nil && n != 0 {
			return n
		}
	}
	return 0
}

// parseMaps returns the mappings of System V shared memory.
func parseMaps(maps string) []Mapping {
	var all []Mapping
	for line := range strings.Lines(maps) {
		words := strings.Fields(line)
		if len(words) < 6 || !strings.HasPrefix(words[5], "/SYSV") {
			continue
		}
		from, to, _ := strings.Cut(words[0], "-")
		a, aerr := strconv.ParseUint(from, 16, 64)
		b, berr := strconv.ParseUint(to, 16, 64)
		if aerr == nil && berr == nil {
			all = append(all, Mapping{Path: words[5], Bytes: int64(b - a)})
		}
	}
	return all
}

func mounts(pid int) ([]Mount, error) {
	raw, err := os.ReadFile(path(pid, "mountinfo"))
	if err != nil {
		return nil, err
	}
	return parseMounts(string(raw)), nil
}

// parseMounts reads lines "ID PARENT DEVICE ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE …".
func parseMounts(info string) []Mount {
	var all []Mount
	for line := range strings.Lines(info) {
		before, after, ok := strings.Cut(line, " - ")
		words, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(words) < 6 || len(tail) < 1 {
			continue
		}
		id, err := strconv.Atoi(words[0])
		if err != nil {
			continue
		}
		all = append(all, Mount{ID: id, Device: words[2], Root: unescape(words[3]), Point: unescape(words[4]), Type: tail[0]})
	}
	return all
}

// unescape reads the octal escapes of blanks in mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
