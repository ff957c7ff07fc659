// What a clone loses without a word, as README.md says.
#include "check.h"
#include <arpa/inet.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/wait.h>

static int mailbox;

static void make_datagram(void) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7005), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	mailbox = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	MUST(bind(mailbox, (void *)&a, sizeof a));
	MUST(connect(mailbox, (void *)&a, sizeof a));
	MUST(send(mailbox, "unread", 6, 0));
}

static bool check_datagram(int round) {
	char b[8];
	(void)round;
	WANT(recv(mailbox, b, sizeof b, MSG_DONTWAIT) == 6);
	MUST(send(mailbox, "unread", 6, 0));
	return true;
}

static int id;
static pid_t holder;

// Takes it, and has the kernel give it back when it ends.
static void hold(void) {
	struct sembuf down = {.sem_op = -1, .sem_flg = SEM_UNDO};
	MUST(semop(id, &down, 1));
	for (;;)
		pause();
}

static void take(void) {
	holder = child(hold);
	while (semctl(id, 0, GETVAL) != 0)
		usleep(1000);
}

static void make_undo(void) {
	id = MUST(semget(IPC_PRIVATE, 1, 0600));
	MUST(semctl(id, 0, SETVAL, 1));
	take();
}

static bool check_undo(int round) {
	int status;
	(void)round;
	WANT(kill(holder, SIGKILL) == 0 && waitpid(holder, &status, 0) == holder);
	WANT(semctl(id, 0, GETVAL) == 1);
	take();
	return true;
}

static cpu_set_t bound;

static void make_affinity(void) {
	CPU_ZERO(&bound);
	CPU_SET(sched_getcpu(), &bound);
	MUST(sched_setaffinity(0, sizeof bound, &bound));
}

static bool check_affinity(int round) {
	cpu_set_t now;
	(void)round;
	WANT(sched_getaffinity(0, sizeof now, &now) == 0 && CPU_EQUAL(&now, &bound));
	return true;
}

const struct object lost[] = {
	{"unread-datagram", make_datagram, check_datagram},
	{"semaphore-undo", make_undo, check_undo},
	{"processor", make_affinity, check_affinity},
	{0},
};
