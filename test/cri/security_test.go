package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// security is a variant of a container's security context, and what a process
// must find in it.
type security struct {
	change func(*runtimeapi.ContainerConfig)
	// pod changes the pod, where the variant needs that.
	pod func(*runtimeapi.PodSandboxConfig)
	// want are lines that the view must hold.
	want []string
}

// withSecurity changes a container's security context.
func withSecurity(f func(*runtimeapi.LinuxContainerSecurityContext)) func(*runtimeapi.ContainerConfig) {
	return func(c *runtimeapi.ContainerConfig) { f(c.Linux.SecurityContext) }
}

// view is a script that prints what a process can see of its rights and its
// surroundings.
const view = `
id
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Cpus_allowed_list|SigIgn|SigBlk|SigCgt|Umask)' /proc/self/status
cat /proc/self/limits
echo oom $(cat /proc/self/oom_score_adj)
echo cwd $(pwd) host $(hostname)
env | sort
for ns in cgroup user time; do [ /proc/self/ns/$ns -ef /proc/1/ns/$ns ] && echo same $ns; done
sed 's/^\([0-9]* \)\{2\}[0-9:]* //; s/ - / /' /proc/self/mountinfo
find /dev -exec stat -c '%n %F %t:%T %a %u:%g' {} + | sort
for f in /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range; do echo $f $(cat $f); done
cat /proc/self/cgroup
touch /written && echo root is writable || echo root is read-only
mount -t tmpfs tmpfs /mnt 2>&1 && echo mounted
hostname other 2>&1 && echo renamed
echo 1 >/proc/sys/vm/drop_caches
cat /proc/timer_list 2>&1 | head -c 40
ls /proc/acpi /sys/firmware 2>&1
unshare -U true 2>&1 && echo userns
mknod /tmp/null c 1 3 2>&1 && echo node && cat /tmp/null && echo opened
chroot / true 2>&1 && echo chrooted
ping -c 1 -W 1 127.0.0.1 2>&1 | grep -c '1 packets received'
ulimit -a
ls /proc/self/fd
cat /proc/self/attr/current 2>&1
`

// TestSecurityContexts: what a process may do, and what it sees, is the same
// under both runtimes, in the container's init and in what is executed in it.
func TestSecurityContexts(t *testing.T) {
	t.Parallel()
	profile, dir := seccompProfile(t), t.TempDir()
	for name, s := range map[string]security{
		"default": {want: []string{"NoNewPrivs:\t0", "CapEff:\t00000000a80425fb", "root is writable", "oom 500"}},
		"user": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) {
				c.RunAsUser, c.RunAsGroup = &runtimeapi.Int64Value{Value: 1000}, &runtimeapi.Int64Value{Value: 2000}
				c.SupplementalGroups = []int64{3000, 4000}
			}),
			want: []string{"uid=1000 gid=2000 groups=2000,3000,4000", "CapEff:\t0000000000000000"},
		},
		"user by name": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) { c.RunAsUsername = "nobody" }),
			want:   []string{"uid=65534(nobody)", "CapPrm:\t0000000000000000"},
		},
		"capabilities": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) {
				c.Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"CHOWN", "MKNOD"}}
			}),
			want: []string{"CapEff:\t00000000a00435fa"},
		},
		"no capabilities": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) {
				c.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
			}),
			want: []string{"CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"},
		},
		"read-only root": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) { c.ReadonlyRootfs = true }),
			want:   []string{"root is read-only"},
		},
		"privileged": {
			pod:    func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true },
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) { c.Privileged = true }),
			want:   []string{"mounted", "Seccomp:\t0"},
		},
		"no new privileges": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) { c.NoNewPrivs = true }),
			want:   []string{"NoNewPrivs:\t1"},
		},
		"default seccomp": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) {
				c.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
			}),
			want: []string{"Seccomp:\t2"},
		},
		"own seccomp": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) {
				c.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: profile}
			}),
			want: []string{"Seccomp:\t2", "chroot: can't change root directory to '/': No such device or address"},
		},
		"unconfined": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) {
				c.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
			}),
			want: []string{"Seccomp:\t0"},
		},
		"no masked paths": {
			change: withSecurity(func(c *runtimeapi.LinuxContainerSecurityContext) {
				c.MaskedPaths, c.ReadonlyPaths = []string{}, []string{}
			}),
		},
		"sysctls": {
			pod: func(c *runtimeapi.PodSandboxConfig) {
				c.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "2000"}
			},
			want: []string{"/proc/sys/kernel/shm_rmid_forced 1", "ip_unprivileged_port_start 2000"},
		},
		"mounts": {
			change: func(c *runtimeapi.ContainerConfig) {
				c.Mounts = append(c.Mounts,
					&runtimeapi.Mount{ContainerPath: "/ro", HostPath: dir, Readonly: true},
					&runtimeapi.Mount{ContainerPath: "/deep", HostPath: dir, Readonly: true, RecursiveReadOnly: true},
					&runtimeapi.Mount{ContainerPath: "/rw", HostPath: dir})
			},
			want: []string{" /ro ro,", " /deep ro,", " /rw rw,"},
		},
		"device": {
			change: func(c *runtimeapi.ContainerConfig) {
				c.Devices = []*runtimeapi.Device{{ContainerPath: "/dev/mine", HostPath: "/dev/null", Permissions: "r"}}
			},
			want: []string{"/dev/mine character special file 1:3"},
		},
		"terminal and directory": {
			change: func(c *runtimeapi.ContainerConfig) { c.Tty, c.WorkingDir = true, "/new/directory" },
			want:   []string{"cwd /new/directory"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := map[string][2]string{}
			for _, handler := range []string{runc, snap} {
				t.Run(handler, func(t *testing.T) { seen[handler] = s.look(t, handler) })
			}
			for i, of := range []string{"init", "exec"} {
				ours, stock := seen[snap][i], seen[runc][i]
				if ours != stock {
					t.Errorf("%s: what a process sees differs:\n%s", of, difference(stock, ours))
				}
				for _, line := range s.want {
					if !strings.Contains(ours, line) {
						t.Errorf("%s: a process does not see %q:\n%s", of, line, ours)
					}
				}
			}
		})
	}
}

// look returns what the container's init and an executed process see.
func (s security) look(t *testing.T, handler string) [2]string {
	t.Helper()
	change := []func(*runtimeapi.ContainerConfig){}
	if s.change != nil {
		change = append(change, s.change)
	}
	named := func(c *runtimeapi.PodSandboxConfig) {
		c.Hostname = "same"
		if s.pod != nil {
			s.pod(c)
		}
	}
	p := runPod(t, handler, named)
	c := p.startShell("a", "("+view+") 2>&1; echo seen; "+forever, change...)
	c.logHas(" F seen")
	var init strings.Builder
	for _, l := range c.log() {
		m := line.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("line %q of the log", l)
		}
		if init.WriteString(m[3]); m[2] == "F" {
			init.WriteByte('\n')
		}
	}
	// An init without input has an ended pipe under ours, so that a restore can
	// give it another; only what is executed has /dev/null, as under the stock runtime.
	const streams = "stat -L -c '%n %F' /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2\n"
	return [2]string{p.neutral(c, init.String()), p.neutral(c, c.run("sh", "-c", "("+view+streams+") 2>&1"))}
}

// different are the parts of a view that differ from one start to the next.
var different = []*regexp.Regexp{
	regexp.MustCompile(`KUBERNETES_\S+`),
	regexp.MustCompile(`(?m)^SNAP_TEST=.*$`),
	regexp.MustCompile(`(?m)^(SHLVL|HOSTNAME|TERM)=.*$`),
	regexp.MustCompile(`\b(master|shared|propagate_from):\d+`),
	regexp.MustCompile(`(lowerdir|upperdir|workdir)=[^, ]+`),
	regexp.MustCompile(`/snapshots/\d+`),
	regexp.MustCompile(`/dev/(fd|pts)/\d+.*`),
	regexp.MustCompile(`pod\d+`),
	regexp.MustCompile(`/a-\d+`),
}

// neutral takes out of a view what names the container or the pod.
func (p *pod) neutral(c *container, text string) string {
	text = strings.NewReplacer(c.id, "ID", p.id, "SANDBOX", p.dir, "DIR").Replace(text)
	for _, d := range different {
		text = d.ReplaceAllString(text, "X")
	}
	return text
}

// difference shows the lines that only one of two texts has.
func difference(stock, ours string) string {
	var b strings.Builder
	only := func(sign, in, notIn string) {
		has := map[string]bool{}
		for l := range strings.Lines(notIn) {
			has[l] = true
		}
		for l := range strings.Lines(in) {
			if !has[l] {
				fmt.Fprintf(&b, "%s %s", sign, l)
			}
		}
	}
	only("stock", stock, ours)
	only("ours ", ours, stock)
	return b.String()
}

// seccompProfile writes a profile that lets everything but chroot.
func seccompProfile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "profile.json")
	profile := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 6}]}`
	if err := os.WriteFile(file, []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
