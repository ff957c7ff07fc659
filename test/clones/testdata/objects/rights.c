// Processes and threads that gave up rights: filters, capabilities, users.
#include "check.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

// Lets everything through but one call, which fails with an error number.
static void filter(int call, int error) {
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {.len = sizeof f / sizeof f[0], .filter = f};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p, 0, 0) != 0)
		die("seccomp");
}

// One that answers questions about itself: a byte asks, a byte says what is wrong, 0 for nothing.
struct witness {
	int questions[2], answers[2];
	pid_t pid;
	char (*look)(void);
};

static void testify(struct witness *w) {
	char c;
	do {
		c = w->look();
		if (write(w->answers[1], &c, 1) != 1)
			return;
	} while (read(w->questions[0], &c, 1) == 1);
}

static void call_witness(struct witness *w) {
	MUST(pipe(w->questions));
	MUST(pipe(w->answers));
}

static bool agrees(struct witness *w) {
	char c = -1;
	WANT(write(w->questions[1], "?", 1) == 1);
	WANT(readable(w->answers[0]) && read(w->answers[0], &c, 1) == 1);
	if (c != 0)
		printf("wrong: it says %d\n", c);
	return c == 0;
}

static void swear_in(struct witness *w) {
	char c = -1;
	if (read(w->answers[0], &c, 1) != 1 || c != 0) {
		errno = c;
		die("it is wrong from the beginning");
	}
}

// Two filters, of which the later came on top of the earlier one; the parent has none.
static struct witness filtered, threaded, capable, user;

static char look_at_filters(void) {
	if (syscall(SYS_getppid) != -1 || errno != EXDEV)
		return 1;
	if (syscall(SYS_getpgid, 0) != -1 || errno != EMLINK)
		return 2;
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_SECCOMP) == 2 ? 0 : 3;
}

static void be_filtered(void) {
	filter(SYS_getppid, EXDEV);
	filter(SYS_getpgid, EMLINK);
	filtered.look = look_at_filters;
	testify(&filtered);
}

static int own_privileges;

static void make_seccomp(void) {
	own_privileges = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	call_witness(&filtered);
	filtered.pid = child(be_filtered);
	swear_in(&filtered);
}

static bool check_seccomp(int round) {
	(void)round;
	WANT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == own_privileges);
	WANT(syscall(SYS_getpgid, 0) != -1);
	return agrees(&filtered);
}

// A process of which one thread has a filter and the others have none.
static char look_at_thread(void) { return syscall(SYS_getppid) == -1 && errno == EXDEV ? 0 : 1; }

static void *be_filtered_thread(void *arg) {
	filter(SYS_getppid, EXDEV);
	threaded.look = look_at_thread;
	testify(&threaded);
	return arg;
}

static void have_filtered_thread(void) {
	pthread_t t;
	if (pthread_create(&t, NULL, be_filtered_thread, NULL) != 0)
		_exit(1);
	for (;;) {
		usleep(10000);
		if (syscall(SYS_getppid) == -1)
			_exit(1); // the other thread's witness ends with it
	}
}

static void make_filtered_thread(void) {
	call_witness(&threaded);
	threaded.pid = child(have_filtered_thread);
	swear_in(&threaded);
}

static bool check_filtered_thread(int round) {
	(void)round;
	WANT(state(threaded.pid) != 'Z');
	return agrees(&threaded);
}

enum { KEEP = 1 << CAP_CHOWN | 1 << CAP_KILL };

static char look_at_capabilities(void) {
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	if (syscall(SYS_capget, &h, d) != 0)
		return 1;
	if (d[0].permitted != KEEP || d[0].effective != 1 << CAP_CHOWN || d[0].inheritable != 1 << CAP_KILL || d[1].permitted != 0)
		return 2;
	if (prctl(PR_CAPBSET_READ, CAP_NET_RAW, 0, 0, 0) != 0 || prctl(PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0) != 1)
		return 3;
	return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) == 1 ? 0 : 4;
}

static void be_capable(void) {
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{.permitted = KEEP, .effective = 1 << CAP_CHOWN, .inheritable = 1 << CAP_KILL}};
	if (prctl(PR_CAPBSET_DROP, CAP_NET_RAW, 0, 0, 0) != 0 || syscall(SYS_capset, &h, d) != 0 ||
	    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) != 0)
		die("drop capabilities");
	capable.look = look_at_capabilities;
	testify(&capable);
}

static void make_capabilities(void) {
	call_witness(&capable);
	capable.pid = child(be_capable);
	swear_in(&capable);
}

static bool check_capabilities(int round) {
	(void)round;
	return agrees(&capable);
}

static char look_at_user(void) {
	uid_t r, e, s;
	gid_t groups[8];
	if (getresuid(&r, &e, &s) != 0 || r != 1000 || e != 1000 || s != 1000)
		return 1;
	if (getresgid(&r, &e, &s) != 0 || r != 1001 || e != 1001 || s != 1001)
		return 2;
	if (getgroups(8, groups) != 2 || groups[0] != 44 || groups[1] != 55)
		return 3;
	return open("/etc/shadow-of-root", O_RDONLY) == -1 && errno == EACCES ? 0 : 4;
}

static void be_user(void) {
	gid_t groups[] = {44, 55};
	close(MUST(open("/etc/shadow-of-root", O_CREAT | O_WRONLY, 0600)));
	if (setgroups(2, groups) != 0 || setresgid(1001, 1001, 1001) != 0 || setresuid(1000, 1000, 1000) != 0)
		die("become another user");
	user.look = look_at_user;
	testify(&user);
}

static void make_user(void) {
	call_witness(&user);
	user.pid = child(be_user);
	swear_in(&user);
}

static bool check_user(int round) {
	(void)round;
	return agrees(&user);
}

const struct object rights[] = {
	{"seccomp", make_seccomp, check_seccomp},
	{"filtered-thread", make_filtered_thread, check_filtered_thread},
	{"capabilities", make_capabilities, check_capabilities},
	{"another-user", make_user, check_user},
	{0},
};
