// A program that holds kernel objects of all kinds, in several processes, and looks
// at SIGUSR1 whether each is as it left it. It says "ready" when it has made them, then
// "ok N" after round N, or "wrong" with what is wrong. Its arguments name the objects that
// it is to have; without any it has all.
#include "check.h"
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static const struct object *const all[] = {descriptors, sockets, timers, shared, processes, rights, refused, lost};
static const char *current = "the program";

void die(const char *what) {
	fprintf(stderr, "%s: %s: %m\n", current, what);
	fflush(NULL);
	_exit(3);
}

const char *text(const char *what, int round) {
	static char buffer[4][64];
	static int next;
	char *b = buffer[next++ % 4];
	snprintf(b, sizeof buffer[0], "%s of round %d", what, round);
	return b;
}

bool readable(int fd) {
	struct pollfd p = {.fd = fd, .events = POLLIN};
	return poll(&p, 1, 20000) == 1 && (p.revents & POLLIN);
}

bool holds(int fd, const char *want) {
	char got[128] = "";
	size_t n = strlen(want);
	return readable(fd) && read(fd, got, n) == (ssize_t)n && memcmp(got, want, n) == 0;
}

pid_t child(void (*f)(void)) {
	pid_t parent = getpid(), pid = MUST(fork());
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(3);
	f();
	_exit(0);
}

char state(pid_t pid) {
	char path[32], line[512] = "", *end;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, line, sizeof line - 1);
	close(fd);
	end = n > 0 ? strrchr(line, ')') : NULL;
	return end ? end[2] : 0;
}

bool comes_to(pid_t pid, char want) {
	for (int i = 0; i < 2000; i++) {
		if (state(pid) == want)
			return true;
		usleep(10000);
	}
	return false;
}

static bool wanted(int argc, char **argv, const char *name) {
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return true;
	return argc == 1;
}

int main(int argc, char **argv) {
	const struct object *mine[64];
	size_t n = 0;
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		for (const struct object *o = all[i]; o->name; o++)
			if (wanted(argc, argv, o->name)) {
				current = o->name;
				o->make();
				mine[n++] = o;
			}
	if (n == 0 || (argc > 1 && n != (size_t)argc - 1)) {
		current = "the arguments";
		die("name objects that there are");
	}
	printf("ready\n");
	for (int round = 0; sigwait(&set, &sig) == 0 && sig == SIGUSR1; round++) {
		bool good = true;
		for (size_t i = 0; i < n; i++)
			if (!mine[i]->check(round)) {
				printf("wrong: %s in round %d\n", mine[i]->name, round);
				good = false;
			}
		if (good)
			printf("ok %d\n", round);
	}
	return 0;
}
