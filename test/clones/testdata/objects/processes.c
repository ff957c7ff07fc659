// A family of processes: groups, sessions, terminals, the stopped and the dead; threads.
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>

static pid_t zombie, killed;

static void leave(void) { _exit(42); }
static void stay(void) {
	for (;;)
		pause();
}

static void make_zombies(void) {
	zombie = child(leave);
	killed = child(stay);
	MUST(kill(killed, SIGKILL));
	if (!comes_to(zombie, 'Z') || !comes_to(killed, 'Z'))
		die("they do not die");
}

static bool check_zombies(int round) {
	siginfo_t info = {0};
	(void)round;
	WANT(state(zombie) == 'Z' && state(killed) == 'Z');
	WANT(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT) == 0 && info.si_code == CLD_EXITED && info.si_status == 42);
	WANT(waitid(P_PID, killed, &info, WEXITED) == 0 && info.si_code == CLD_KILLED && info.si_status == SIGKILL);
	WANT(waitid(P_PID, zombie, &info, WEXITED) == 0);
	make_zombies();
	return true;
}

// Stops itself; when it is woken it counts, and stops itself again.
static int *woken;
static pid_t stopped;

static void stop_again(void) {
	for (;;) {
		raise(SIGSTOP);
		++*woken;
	}
}

static void make_stopped(void) {
	woken = MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	stopped = child(stop_again);
	if (!comes_to(stopped, 'T'))
		die("it does not stop");
}

static bool check_stopped(int round) {
	WANT(state(stopped) == 'T' && *woken == round);
	WANT(kill(stopped, SIGCONT) == 0);
	for (int i = 0; i < 2000 && *woken == round; i++)
		usleep(10000);
	WANT(*woken == round + 1 && comes_to(stopped, 'T'));
	return true;
}

// A session with two groups, one of which has lost its leader; and an orphan.
static struct {
	pid_t leader, first, second, orphan;
} *family;

static void found_group(void) {
	setpgid(0, 0);
	if (fork() == 0) {
		family->second = getpid();
		stay();
	}
	_exit(0); // the leader of the group, which lives on without it
}

static void found_session(void) {
	int status;
	setsid();
	family->leader = getpid();
	pid_t gone = fork();
	if (gone == 0)
		found_group();
	waitpid(gone, &status, 0);
	if (fork() == 0) {
		setpgid(0, 0);
		family->first = getpid();
		stay();
	}
	stay();
}

static void make_groups(void) {
	int status;
	family = MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	child(found_session);
	pid_t between = MUST(fork());
	if (between == 0) {
		if (fork() == 0) {
			family->orphan = getpid();
			stay();
		}
		_exit(0);
	}
	waitpid(between, &status, 0);
	while (!family->leader || !family->first || !family->second || !family->orphan)
		usleep(1000);
}

static pid_t parent(pid_t pid) {
	char path[32], line[512] = "";
	pid_t ppid = -1;
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY);
	if (fd >= 0 && read(fd, line, sizeof line - 1) > 0)
		sscanf(strrchr(line, ')') + 3, "%*c %d", &ppid);
	close(fd);
	return ppid;
}

static bool check_groups(int round) {
	pid_t s = family->leader;
	(void)round;
	WANT(getsid(s) == s && getpgid(s) == s && parent(s) == getpid());
	WANT(getsid(family->first) == s && getpgid(family->first) == family->first && parent(family->first) == s);
	WANT(getsid(family->second) == s && getpgid(family->second) != s && getpgid(family->second) != family->second);
	WANT(state(getpgid(family->second)) == 0);
	WANT(getsid(family->orphan) == getsid(0) && parent(family->orphan) == 1);
	return true;
}

// A terminal inside: a session that has it, a group in the foreground, and input that
// nobody has read yet.
static int master;
static pid_t session;

static void echo_back(void) {
	char b[128];
	setsid();
	int tty = MUST(open(ptsname(master), O_RDWR));
	MUST(ioctl(tty, TIOCSCTTY, 0));
	struct termios t;
	MUST(tcgetattr(tty, &t));
	t.c_lflag &= ~(ECHO | ICANON);
	t.c_oflag &= ~OPOST;
	MUST(tcsetattr(tty, TCSANOW, &t));
	struct winsize w = {.ws_row = 33, .ws_col = 111};
	MUST(ioctl(tty, TIOCSWINSZ, &w));
	close(master);
again:
	if (write(tty, "prompt", 6) != 6)
		_exit(1);
	ssize_t n = read(tty, b, sizeof b);
	if (n > 0 && write(tty, b, n) == n)
		goto again;
	_exit(1);
}

static void make_terminal(void) {
	master = MUST(posix_openpt(O_RDWR | O_NOCTTY));
	MUST(grantpt(master));
	MUST(unlockpt(master));
	session = child(echo_back);
	if (!readable(master))
		die("no prompt");
}

static bool check_terminal(int round) {
	struct termios t;
	struct winsize w;
	pid_t group = 0, owner = 0;
	WANT(ioctl(master, TIOCGSID, &owner) == 0 && owner == session);
	WANT(ioctl(master, TIOCGPGRP, &group) == 0 && group == session);
	WANT(ioctl(master, TIOCGWINSZ, &w) == 0 && w.ws_row == 33 && w.ws_col == 111);
	WANT(tcgetattr(master, &t) == 0 && !(t.c_lflag & (ECHO | ICANON)) && !(t.c_oflag & OPOST));
	WANT(holds(master, "prompt"));
	WANT(write(master, text("line", round), strlen(text("line", round))) > 0);
	WANT(holds(master, text("line", round)));
	WANT(readable(master)); // the next prompt, for the next round
	return true;
}

// Threads with names, masks and priorities of their own, that wait for their turns.
enum { THREADS = 4 };
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn[THREADS];
static bool wrong[THREADS];
static __thread int mine = -1;
static pid_t tids[THREADS];

static void *take_turns(void *arg) {
	char name[16];
	sigset_t set, now;
	mine = (int)(intptr_t)arg;
	snprintf(name, sizeof name, "worker-%d", mine);
	prctl(PR_SET_NAME, name);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 5 + mine);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	setpriority(PRIO_PROCESS, 0, mine + 1);
	pthread_mutex_lock(&mutex);
	tids[mine] = gettid();
	pthread_cond_broadcast(&changed);
	for (int i = mine;;) {
		while (turn[i] % 2 == 0)
			pthread_cond_wait(&changed, &mutex);
		char is[16] = "";
		prctl(PR_GET_NAME, is);
		pthread_sigmask(SIG_BLOCK, NULL, &now);
		wrong[i] = mine != i || strcmp(is, name) != 0 || !sigismember(&now, SIGRTMIN + 5 + i) || sigismember(&now, SIGRTMIN + 4 + i) ||
			   getpriority(PRIO_PROCESS, 0) != i + 1 || tids[i] != (pid_t)syscall(SYS_gettid);
		turn[i]++;
		pthread_cond_broadcast(&changed);
	}
	return NULL;
}

static void make_threads(void) {
	pthread_t t;
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&t, NULL, take_turns, (void *)(intptr_t)i) != 0)
			die("pthread_create");
	pthread_mutex_lock(&mutex);
	for (int i = 0; i < THREADS; i++)
		while (tids[i] == 0)
			pthread_cond_wait(&changed, &mutex);
	pthread_mutex_unlock(&mutex);
}

static bool check_threads(int round) {
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	bool good = true;
	pthread_mutex_lock(&mutex);
	for (int i = 0; i < THREADS; i++)
		turn[i]++;
	pthread_cond_broadcast(&changed);
	for (int i = 0; i < THREADS; i++) {
		while (turn[i] < 2 * (round + 1) && pthread_cond_timedwait(&changed, &mutex, &until) == 0)
			;
		good = good && turn[i] == 2 * (round + 1) && !wrong[i];
	}
	pthread_mutex_unlock(&mutex);
	WANT(good);
	return true;
}

// What a process has besides, and limits of its own: lower than its parent's.
static int reports[2], questions[2];

struct trait {
	struct rlimit files, core, stack;
	mode_t mask;
	int nice, death, reaper, policy;
	char cwd[32], name[16];
	stack_t stack_of_signals;
};

static struct trait look(void) {
	struct trait t = {0};
	getrlimit(RLIMIT_NOFILE, &t.files);
	getrlimit(RLIMIT_CORE, &t.core);
	getrlimit(RLIMIT_STACK, &t.stack);
	t.mask = umask(0);
	umask(t.mask);
	t.nice = getpriority(PRIO_PROCESS, 0);
	prctl(PR_GET_PDEATHSIG, &t.death);
	prctl(PR_GET_CHILD_SUBREAPER, &t.reaper);
	t.policy = sched_getscheduler(0);
	if (!getcwd(t.cwd, sizeof t.cwd))
		die("getcwd");
	prctl(PR_GET_NAME, t.name);
	sigaltstack(NULL, &t.stack_of_signals);
	return t;
}

static void report(void) {
	static char room[16384];
	stack_t s = {.ss_sp = room, .ss_size = sizeof room};
	char c;
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){70, 77});
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 4096});
	setrlimit(RLIMIT_STACK, &(struct rlimit){1 << 20, 2 << 20});
	umask(027);
	setpriority(PRIO_PROCESS, 0, 7);
	prctl(PR_SET_PDEATHSIG, SIGINT);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
	mkdir("/somewhere", 0700);
	MUST(chdir("/somewhere"));
	prctl(PR_SET_NAME, "different");
	MUST(sigaltstack(&s, NULL));
	do {
		struct trait t = look();
		if (write(reports[1], &t, sizeof t) != sizeof t)
			_exit(1);
	} while (read(questions[0], &c, 1) == 1);
}

static struct trait first;

static void make_traits(void) {
	MUST(pipe(reports));
	MUST(pipe(questions));
	child(report);
	if (read(reports[0], &first, sizeof first) != sizeof first || first.files.rlim_max != 77 || first.nice != 7 || first.policy != SCHED_BATCH)
		die("the child is not as it should be");
}

static bool check_traits(int round) {
	struct trait t;
	(void)round;
	WANT(write(questions[1], "?", 1) == 1);
	WANT(readable(reports[0]) && read(reports[0], &t, sizeof t) == sizeof t);
	WANT(memcmp(&t.files, &first.files, sizeof t.files) == 0 && memcmp(&t.core, &first.core, sizeof t.core) == 0 && memcmp(&t.stack, &first.stack, sizeof t.stack) == 0);
	WANT(t.mask == 027 && t.nice == 7 && t.policy == SCHED_BATCH);
	WANT(t.death == SIGINT && t.reaper == 1);
	WANT(strcmp(t.cwd, "/somewhere") == 0 && strcmp(t.name, "different") == 0);
	WANT(memcmp(&t.stack_of_signals, &first.stack_of_signals, sizeof t.stack_of_signals) == 0);
	return true;
}

const struct object processes[] = {
	{"zombies", make_zombies, check_zombies},
	{"stopped", make_stopped, check_stopped},
	{"groups", make_groups, check_groups},
	{"terminal", make_terminal, check_terminal},
	{"threads", make_threads, check_threads},
	{"traits", make_traits, check_traits},
	{0},
};
