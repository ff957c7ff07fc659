/*
 * For tests only: lets a CRIU without CAP_SYS_RESOURCE, as in many containers,
 * read the limits of processes of other users than root. tools/setup/criu has
 * it preloaded where root lacks the capability, and nowhere else.
 *
 * prlimit(2) needs the capability, or a caller whose real user and group id
 * are the real, effective and saved ones of the process (check_prlimit_permission
 * in the kernel's kernel/sys.c). So CRIU's real ids become the process's for the
 * time of the call. Its effective ones remain root's, and with them every
 * capability (capabilities(7), "Effect of user ID changes on capabilities").
 *
 * CRIU calls it through syscall(2), which is therefore what is wrapped.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static long (*real_syscall)(long, ...);

/* Before main: later, CRIU may be in no state to look for symbols. A library's
 * own constructor may be yet earlier. */
__attribute__((constructor)) static void find_syscall(void)
{
	*(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
}

/* only_id reads the real id in the line of /proc/PID/status that format
 * begins; it fails if the effective or the saved one differ from it. */
static int only_id(pid_t pid, const char *format, unsigned *id)
{
	char path[32], line[256];
	unsigned effective, saved;
	int result = -1;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "re");
	if (!status)
		return -1;
	while (fgets(line, sizeof(line), status)) {
		if (sscanf(line, format, id, &effective, &saved) != 3)
			continue;
		if (*id == effective && *id == saved)
			result = 0;
		break;
	}
	fclose(status);
	return result;
}

/* read_limit is prlimit(2) in the name of the process's user. The bare calls
 * change this thread only; libc's own would change all. */
static long read_limit(pid_t pid, long resource, long old)
{
	uid_t our_uid = getuid(), uid;
	gid_t our_gid = getgid(), gid;
	long result = -1;

	if (!only_id(pid, "Uid: %u %u %u", &uid) && !only_id(pid, "Gid: %u %u %u", &gid)) {
		if (!real_syscall(SYS_setresgid, gid, -1, -1) && !real_syscall(SYS_setresuid, uid, -1, -1))
			result = real_syscall(SYS_prlimit64, (long)pid, resource, 0L, old);
		if (real_syscall(SYS_setresuid, our_uid, -1, -1) || real_syscall(SYS_setresgid, our_gid, -1, -1))
			_exit(1); /* never go on as somebody else */
	}
	if (result)
		errno = EPERM;
	return result;
}

long syscall(long number, ...)
{
	long a[6], result;
	va_list args;

	if (!real_syscall)
		find_syscall();
	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	result = real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	/* a[2] is what to set: nothing. */
	if (number == SYS_prlimit64 && result && errno == EPERM && !a[2])
		return read_limit(a[0], a[1], a[3]);
	return result;
}
