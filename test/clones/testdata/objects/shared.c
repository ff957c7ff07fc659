// Memory and queues that processes share, by key, by name or by inheritance.
#include "check.h"
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>

// In each memory is a turn: a child waits for an odd one, and makes it even.
static void answer(volatile int *turn) {
	for (;;) {
		if (*turn % 2)
			__atomic_add_fetch(turn, 1, __ATOMIC_SEQ_CST);
		usleep(1000);
	}
}

static bool ask(volatile int *turn, int round) {
	WANT(*turn == 2 * round);
	__atomic_add_fetch(turn, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 20000 && *turn % 2; i++)
		usleep(1000);
	WANT(*turn == 2 * round + 2);
	return true;
}

static int *by_key, id_of_shm;
enum { KEY = 0x534e4150 };

static void answer_by_key(void) { answer(MUST((int *)shmat(id_of_shm, NULL, 0))); }

static void make_shm(void) {
	shmget(KEY + 1, 4096, IPC_CREAT | 0600); // so that the other's number is not 0
	id_of_shm = MUST(shmget(KEY, 1 << 20, IPC_CREAT | IPC_EXCL | 0640));
	by_key = MUST((int *)shmat(id_of_shm, NULL, 0));
	child(answer_by_key);
}

static bool check_shm(int round) {
	struct shmid_ds d;
	WANT(shmget(KEY, 0, 0) == id_of_shm);
	WANT(shmctl(id_of_shm, IPC_STAT, &d) == 0 && d.shm_nattch >= 2 && d.shm_segsz == 1 << 20 && (d.shm_perm.mode & 0777) == 0640);
	return ask(by_key, round);
}

static int id_of_sem;

static void make_sem(void) {
	unsigned short v[] = {7, 0, 30000};
	id_of_sem = MUST(semget(KEY, 3, IPC_CREAT | IPC_EXCL | 0600));
	MUST(semctl(id_of_sem, 0, SETALL, v));
}

static bool check_sem(int round) {
	struct sembuf up = {.sem_num = 0, .sem_op = 1};
	WANT(semget(KEY, 3, 0) == id_of_sem);
	WANT(semctl(id_of_sem, 0, GETVAL) == 7 + round && semctl(id_of_sem, 2, GETVAL) == 30000);
	WANT(semop(id_of_sem, &up, 1) == 0);
	return true;
}

static int id_of_msg;
struct message {
	long type;
	char text[60];
};

static void send_message(long type, int round) {
	struct message m = {.type = type};
	strcpy(m.text, text("message", round));
	MUST(msgsnd(id_of_msg, &m, sizeof m.text, 0));
}

static void make_msg(void) {
	id_of_msg = MUST(msgget(KEY, IPC_CREAT | IPC_EXCL | 0600));
	send_message(5, 0);
	send_message(9, 1000);
}

static bool check_msg(int round) {
	struct message m;
	WANT(msgget(KEY, 0) == id_of_msg);
	WANT(msgrcv(id_of_msg, &m, sizeof m.text, 9, IPC_NOWAIT) == sizeof m.text && strcmp(m.text, text("message", 1000 + round)) == 0);
	WANT(msgrcv(id_of_msg, &m, sizeof m.text, 5, IPC_NOWAIT) == sizeof m.text && strcmp(m.text, text("message", round)) == 0);
	WANT(msgrcv(id_of_msg, &m, sizeof m.text, 0, IPC_NOWAIT) == -1 && errno == ENOMSG);
	send_message(5, round + 1);
	send_message(9, 1001 + round);
	return true;
}

static int *by_name, *without_name, *inherited;

static int *map(const char *name) {
	int fd = MUST(shm_open(name, O_CREAT | O_RDWR, 0600));
	MUST(ftruncate(fd, 4096));
	int *p = MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close(fd);
	return p;
}

static void answer_by_name(void) { answer(map("/turn")); }

static void make_posix_shm(void) {
	by_name = map("/turn");
	child(answer_by_name);
}

static bool check_posix_shm(int round) {
	int *again = map("/turn"); // what has that name is what was mapped
	WANT(*again == *by_name);
	munmap(again, 4096);
	return ask(by_name, round);
}

static void answer_without_name(void) { answer(without_name); }

static void make_unlinked_shm(void) {
	without_name = map("/gone");
	shm_unlink("/gone");
	child(answer_without_name);
}

static bool check_unlinked_shm(int round) { return ask(without_name, round); }

static void answer_inherited(void) { answer(inherited); }

static void make_anonymous_shm(void) {
	inherited = MUST(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	child(answer_inherited);
}

static bool check_anonymous_shm(int round) { return ask(inherited, round); }

const struct object shared[] = {
	{"sysv-shm", make_shm, check_shm},
	{"sysv-sem", make_sem, check_sem},
	{"sysv-msg", make_msg, check_msg},
	{"posix-shm", make_posix_shm, check_posix_shm},
	{"unlinked-shm", make_unlinked_shm, check_unlinked_shm},
	{"anonymous-shm", make_anonymous_shm, check_anonymous_shm},
	{0},
};
