package parity

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// look prints, section by section, what a program can find out about its
// container. It runs in busybox's shell.
const look = `
section() { echo "== $1"; }
section process
tr '\0' '\n' </proc/self/cmdline | head -n 1
grep -E '^(Uid|Gid|Groups|NoNewPrivs|Umask|Cpus_allowed_list|Mems_allowed_list|SigBlk|SigIgn|SigCgt|THP_enabled):' /proc/$$/status
section capabilities
grep -E '^(Cap|Seccomp)' /proc/$$/status
section ids
set -- $(cat /proc/$$/stat)
[ $5 = $$ ] && echo leads its group; [ $6 = $$ ] && echo leads its session
echo first $([ $$ = 1 ] && echo yes) terminal $7 foreground $8
section identity
id; pwd; hostname; cat /proc/sys/kernel/domainname
section environment
env | sort
section limits
cat /proc/$$/limits
section priorities
cat /proc/$$/oom_score_adj
cut -d' ' -f18,19,40,41 /proc/$$/stat
ionice -p $$
section label
cat /proc/$$/attr/current 2>&1
section keys
sed 's/^[0-9a-f]* //' /proc/keys 2>&1 | grep -o '_ses[^ :]*'
section namespaces
for n in /proc/$$/ns/*; do echo "${n##*/} $(readlink $n)"; done
section maps
cat /proc/$$/uid_map /proc/$$/gid_map /proc/$$/setgroups
section cgroups
cat /proc/$$/cgroup
section mounts
cut -d' ' -f4- /proc/$$/mountinfo
section devices
ls -ln /dev | grep -v '^total' | sed 's/[A-Z][a-z][a-z] .*[0-9:]\{4,5\} /DATE /'
section streams
for n in 0 1 2; do f=$(readlink /proc/$$/fd/$n) && echo "$n ${f%%:*} $(stat -L -c '%u:%g %a' /proc/$$/fd/$n)"; done
ls /proc/self/fd | wc -l
section sysctls
for f in kernel/shmmax kernel/msgmax net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range net/ipv4/ip_forward; do echo $f $(cat /proc/sys/$f); done
section addresses
ip addr show 2>&1 | sed 's/^[0-9]*: //' | grep -v 'valid_lft' | grep -E '^(lo|    inet 127)'
section masked
for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/acpi /sys/firmware /proc/scsi /proc/interrupts; do echo $f $(head -c 10 $f 2>/dev/null | wc -c) $(ls -A $f 2>/dev/null | wc -l); done
section readonly
for f in /proc/sys/kernel/shmmni /proc/sysrq-trigger /proc/bus/x /x /tmp/x /dev/x /dev/shm/x; do (: >$f) 2>/dev/null && echo $f writable || echo $f refused; done
section end
`

// view notes what a program sees, started with want as init, and as an exec.
func (s *side) view(w want) *container {
	s.Helper()
	init := w
	init.args = []string{"sh", "-c", look + "echo done; exec sleep 1000"}
	c := s.started(init)
	c.waitFor(c.out, "done")
	c.seeSections("init's ", c.out.String())
	out, code := c.run("sh", "-c", look)
	s.see("exec's exit", "%d", code)
	c.seeSections("exec's ", out)
	if e := c.err.String(); e != "" {
		s.see("errors", "%s", c.normal(e))
	} else {
		s.see("errors", "none")
	}
	return c
}

// explained checks that ours says why the container was not restored.
func (c *container) explained(why string) {
	c.Helper()
	if c.runtime != ours {
		return
	}
	out, err := node.Snapctl(c.context(), "explain", c.ID())
	if err != nil || !strings.Contains(out.Stdout, why) {
		c.Errorf("explain: %v: %s; want %q", err, out.Stdout, why)
	}
}

// seeSections notes each section of what look printed.
func (c *container) seeSections(who, out string) {
	c.Helper()
	for section := range strings.SplitSeq(out, "== ") {
		name, text, _ := strings.Cut(section, "\n")
		switch {
		case name == "namespaces":
			text = ownOrHost(text)
		case name == "keys":
			text = fmt.Sprint("its own: ", strings.Contains(text, "_ses."+c.ID()+"\n"))
		}
		if name != "" && name != "end" {
			c.see(who+name, "%s", c.normal(text))
		}
	}
}

// numbers are those that differ from mount to mount.
var (
	layers  = regexp.MustCompile(`(lowerdir|upperdir|workdir)=[^, ]*`)
	handles = regexp.MustCompile(`(shared|master|propagate_from):[0-9]+`)
	others  = regexp.MustCompile(`/NS/p[0-9]+`)
	inodes  = regexp.MustCompile(`inode(32|64)`)
)

// normal takes out of text what differs from container to container.
func (c *container) normal(text string) string {
	text = strings.NewReplacer(c.ID(), "ID", c.group(), "GROUP", node.Namespace, "NS", node.Dir, "DIR").Replace(text)
	text = others.ReplaceAllString(text, "/NS/another")
	text = layers.ReplaceAllString(text, "$1=…")
	text = handles.ReplaceAllString(text, "$1:N")
	return strings.TrimSpace(inodes.ReplaceAllString(text, "inode"))
}

// group is the name of this side's group of containers in one shim.
func (s *side) group() string { return "group-of-" + strings.ReplaceAll(s.runtime, ".", "-") }

// ownOrHost says for each namespace whether it is the host's.
func ownOrHost(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		name, link, _ := strings.Cut(strings.TrimSpace(line), " ")
		host, err := os.Readlink(filepath.Join("/proc/self/ns", name))
		whose := "its own"
		if err == nil && host == link {
			whose = "the host's"
		}
		lines = append(lines, fmt.Sprintf("%s is %s", name, whose))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
