/*
 * Three processes with threads that share locks, for locks_test.go:
 *
 *   the server   counts with WORKERS threads, takes turns with the second, and has a
 *                thread that waits for each of the two locks that the others hold
 *   the second   counts with WORKERS threads, takes turns, and has a thread that holds
 *                a robust lock until it is told to end, without giving it back
 *   the third    holds a robust lock with priority inheritance until it is killed
 *
 * The server answers commands, a line a connection, on port 7000.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 4

/* What became of a thread that waits for a lock. */
enum outcome { WAITING, OWNER_DIED, FAILED };
static const char *const outcomes[] = { "waiting", "owner died", "failed" };

/* One lock that somebody holds and somebody waits for. */
struct held {
	pthread_mutex_t lock;
	volatile int taken;
	volatile enum outcome outcome;
};

static struct shared {
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	long total, parts[2][WORKERS];
	long turns;
	int whose;
	int end; /* the thread that holds is to end */
	struct held thread, process;
} *s;

static char names[1024];
static pid_t third;

static void check(int error, const char *what)
{
	if (error) {
		fprintf(stderr, "%s: %s\n", what, strerror(error));
		exit(1);
	}
}

static void make_lock(pthread_mutex_t *lock, int protocol)
{
	pthread_mutexattr_t a;

	check(pthread_mutexattr_init(&a), "mutexattr_init");
	check(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED), "setpshared");
	check(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST), "setrobust");
	check(pthread_mutexattr_setprotocol(&a, protocol), "setprotocol");
	check(pthread_mutex_init(lock, &a), "mutex_init");
}

static void run_thread(void *(*f)(void *), void *arg)
{
	pthread_t t;

	check(pthread_create(&t, NULL, f, arg), "pthread_create");
	check(pthread_detach(t), "pthread_detach");
}

__attribute__((noreturn)) static void *count(void *part)
{
	for (;;) {
		check(pthread_mutex_lock(&s->lock), "lock");
		s->total++;
		++*(long *)part;
		check(pthread_mutex_unlock(&s->lock), "unlock");
		usleep(1000);
	}
}

__attribute__((noreturn)) static void *take_turns(void *self)
{
	int me = (int)(long)self;

	for (;;) {
		check(pthread_mutex_lock(&s->lock), "lock");
		while (s->whose != me)
			check(pthread_cond_wait(&s->changed, &s->lock), "cond_wait");
		s->turns++;
		s->whose = !me;
		check(pthread_cond_broadcast(&s->changed), "cond_broadcast");
		check(pthread_mutex_unlock(&s->lock), "unlock");
		usleep(500);
	}
}

static void *wait_for(void *held)
{
	struct held *h = held;
	int error = pthread_mutex_lock(&h->lock);

	/* The lock can be mended, and then used as any other. */
	if (error == EOWNERDEAD && !pthread_mutex_consistent(&h->lock) && !pthread_mutex_unlock(&h->lock) &&
	    !pthread_mutex_lock(&h->lock) && !pthread_mutex_unlock(&h->lock))
		h->outcome = OWNER_DIED;
	else
		h->outcome = FAILED;
	return NULL;
}

/* The thread ends, its process does not: nobody but the kernel can tell who waits. */
static void *hold_until_end(void *unused)
{
	(void)unused;
	check(pthread_mutex_lock(&s->thread.lock), "lock");
	s->thread.taken = 1;
	check(pthread_mutex_lock(&s->lock), "lock");
	while (!s->end)
		check(pthread_cond_wait(&s->changed, &s->lock), "cond_wait");
	check(pthread_mutex_unlock(&s->lock), "unlock");
	return NULL;
}

static void work(int process)
{
	for (long i = 0; i < WORKERS; i++)
		run_thread(count, &s->parts[process][i]);
	run_thread(take_turns, (void *)(long)process);
}

/* child forks; a child ends with its parent. */
static pid_t child(void)
{
	pid_t pid = fork();

	check(pid < 0 ? errno : 0, "fork");
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

static void start(void)
{
	pthread_condattr_t a;

	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(s == MAP_FAILED ? errno : 0, "mmap");
	make_lock(&s->lock, PTHREAD_PRIO_NONE);
	make_lock(&s->thread.lock, PTHREAD_PRIO_NONE);
	make_lock(&s->process.lock, PTHREAD_PRIO_INHERIT);
	check(pthread_condattr_init(&a), "condattr_init");
	check(pthread_condattr_setpshared(&a, PTHREAD_PROCESS_SHARED), "setpshared");
	check(pthread_cond_init(&s->changed, &a), "cond_init");

	if (!child()) {
		run_thread(hold_until_end, NULL);
		work(1);
		for (;;)
			pause();
	}
	third = child();
	if (!third) {
		check(pthread_mutex_lock(&s->process.lock), "lock");
		s->process.taken = 1;
		for (;;)
			pause();
	}
	while (!s->thread.taken || !s->process.taken)
		usleep(1000);
	work(0);
	run_thread(wait_for, &s->thread);
	run_thread(wait_for, &s->process);
}

static void answer(FILE *to, const char *command)
{
	if (!strcmp(command, "state")) {
		long sum = 0;

		check(pthread_mutex_lock(&s->lock), "lock");
		for (int i = 0; i < WORKERS; i++)
			sum += s->parts[0][i] + s->parts[1][i];
		fprintf(to, "{\"total\":%ld,\"sum\":%ld,\"turns\":%ld,\"names\":\"%s\",", s->total, sum, s->turns, names);
		check(pthread_mutex_unlock(&s->lock), "unlock");
		fprintf(to, "\"thread\":\"%s\",\"process\":\"%s\"}\n", outcomes[s->thread.outcome], outcomes[s->process.outcome]);
	} else if (!strcmp(command, "end thread")) {
		check(pthread_mutex_lock(&s->lock), "lock");
		s->end = 1;
		check(pthread_cond_broadcast(&s->changed), "cond_broadcast");
		check(pthread_mutex_unlock(&s->lock), "unlock");
		fputs("done\n", to);
	} else if (!strcmp(command, "end process")) {
		check(kill(third, SIGKILL) ? errno : 0, "kill");
		check(waitpid(third, NULL, 0) < 0 ? errno : 0, "waitpid");
		fputs("done\n", to);
	} else if (!strncmp(command, "add ", 4)) {
		size_t n = strlen(names);

		snprintf(names + n, sizeof(names) - n, "%s%s", n ? " " : "", command + 4);
		fputs("done\n", to);
	} else {
		fputs("unknown command\n", to);
	}
}

int main(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(7000) };
	int on = 1, listener;

	signal(SIGPIPE, SIG_IGN);
	start();
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	check(bind(listener, (struct sockaddr *)&any, sizeof(any)) || listen(listener, 16) ? errno : 0, "listen");
	for (;;) {
		char line[256];
		FILE *peer = NULL;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			continue;
		peer = fdopen(fd, "r+");
		check(peer ? 0 : errno, "fdopen");
		if (fgets(line, sizeof(line), peer)) {
			line[strcspn(line, "\n")] = 0;
			fseek(peer, 0, SEEK_CUR);
			answer(peer, line);
		}
		fclose(peer);
	}
}
