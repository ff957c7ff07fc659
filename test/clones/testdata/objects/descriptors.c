// Descriptors without an address: memory, pipes, pairs, queues of events.
#include "check.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int memfd;
static char *memory;

static void make_memfd(void) {
	memfd = MUST(memfd_create("counter", MFD_ALLOW_SEALING));
	MUST(ftruncate(memfd, 4096));
	memory = MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0));
	strcpy(memory, text("memory", 0));
}

static bool check_memfd(int round) {
	char got[64] = "";
	WANT(strcmp(memory, text("memory", round)) == 0);
	strcpy(memory, text("memory", round + 1));
	// What is written through the mapping is in the file.
	WANT(pread(memfd, got, sizeof got, 0) == sizeof got && strcmp(got, text("memory", round + 1)) == 0);
	WANT(fcntl(memfd, F_GET_SEALS) == 0);
	return true;
}

static int sealed;
enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL };

static void make_sealed(void) {
	sealed = MUST(memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC));
	MUST(write(sealed, "for good", 8));
	MUST(fcntl(sealed, F_ADD_SEALS, SEALS));
}

static bool check_sealed(int round) {
	char got[9] = "";
	(void)round;
	WANT(pread(sealed, got, 8, 0) == 8 && strcmp(got, "for good") == 0);
	WANT(fcntl(sealed, F_GET_SEALS) == SEALS);
	WANT(pwrite(sealed, "x", 1, 0) == -1 && errno == EPERM);
	WANT(fcntl(sealed, F_GETFD) == FD_CLOEXEC);
	return true;
}

static int tube[2];

static void put(int fd, const char *s) {
	size_t n = strlen(s);
	if (write(fd, s, n) != (ssize_t)n)
		die("write");
}

static void make_pipe(void) {
	MUST(pipe2(tube, O_NONBLOCK));
	MUST(fcntl(tube[0], F_SETPIPE_SZ, 1 << 18));
	put(tube[1], text("pipe", 0));
}

static bool check_pipe(int round) {
	char c;
	WANT(fcntl(tube[0], F_GETPIPE_SZ) == 1 << 18);
	WANT(holds(tube[0], text("pipe", round)));
	WANT(read(tube[0], &c, 1) == -1 && errno == EAGAIN);
	put(tube[1], text("pipe", round + 1));
	return true;
}

static int stream[2], datagram[2], packet[2];

static void make_pairs(void) {
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagram));
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packet));
	put(stream[0], text("one way", 0));
	put(stream[1], text("the other", 0));
	for (int i = 0; i < 2; i++) {
		put(datagram[0], text("datagram", i));
		put(packet[0], text("packet", i));
	}
}

static bool check_pairs(int round) {
	WANT(holds(stream[1], text("one way", round)) && holds(stream[0], text("the other", round)));
	put(stream[0], text("one way", round + 1));
	put(stream[1], text("the other", round + 1));
	// Two lie there: what is read is the older one, and it alone.
	WANT(holds(datagram[1], text("datagram", round)));
	put(datagram[0], text("datagram", round + 2));
	WANT(holds(packet[1], text("packet", round)));
	put(packet[0], text("packet", round + 2));
	return true;
}

// A descriptor on its way from one end of a pair to the other.
static int courier[2], sent[2];

static void post(void) {
	char control[CMSG_SPACE(sizeof(int))] = "", byte = 'd';
	struct iovec data = {&byte, 1};
	struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &sent[0], sizeof(int));
	MUST(sendmsg(courier[0], &m, 0));
	close(sent[0]);
}

static void make_passed(void) {
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, courier));
	MUST(pipe(sent));
	put(sent[1], text("passed", 0));
	post();
}

static bool check_passed(int round) {
	char control[CMSG_SPACE(sizeof(int))] = "", byte = 0;
	struct iovec data = {&byte, 1};
	struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	WANT(readable(courier[1]) && recvmsg(courier[1], &m, 0) == 1 && byte == 'd');
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	WANT(c != NULL && c->cmsg_type == SCM_RIGHTS);
	memcpy(&sent[0], CMSG_DATA(c), sizeof(int));
	WANT(holds(sent[0], text("passed", round)));
	put(sent[1], text("passed", round + 1));
	post();
	return true;
}

static int plain;

static void make_eventfd(void) {
	plain = MUST(eventfd(7, EFD_NONBLOCK));
}

static bool check_eventfd(int round) {
	eventfd_t v = 0;
	WANT(eventfd_read(plain, &v) == 0 && v == 7 + (eventfd_t)round);
	WANT(eventfd_read(plain, &v) == -1 && errno == EAGAIN);
	MUST(eventfd_write(plain, 8 + (eventfd_t)round));
	return true;
}

// An epoll within an epoll, of which one member was closed under its number and lives on.
static int outer, inner, member, other;

static void watch(int ep, int fd, uint64_t tag, uint32_t events) {
	struct epoll_event e = {.events = events, .data.u64 = tag};
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

static void make_epoll(void) {
	outer = MUST(epoll_create1(EPOLL_CLOEXEC));
	inner = MUST(epoll_create1(0));
	member = MUST(eventfd(0, EFD_NONBLOCK));
	other = MUST(eventfd(1, EFD_NONBLOCK));
	watch(inner, member, 0x123456789abcdef0, EPOLLIN);
	watch(inner, other, 2, EPOLLIN | EPOLLONESHOT);
	watch(outer, inner, 3, EPOLLIN | EPOLLET);
	// The one-shot has fired: it is a member, and says nothing more.
	struct epoll_event e[2];
	if (epoll_wait(inner, e, 2, 0) != 1 || e[0].data.u64 != 2)
		die("epoll_wait");
}

static bool check_epoll(int round) {
	struct epoll_event e[2];
	eventfd_t v;
	(void)round;
	epoll_wait(outer, e, 2, 0);
	WANT(epoll_wait(inner, e, 2, 0) == 0);
	MUST(eventfd_write(member, 1));
	WANT(epoll_wait(outer, e, 2, 20000) == 1 && e[0].data.u64 == 3);
	WANT(epoll_wait(inner, e, 2, 20000) == 1 && e[0].data.u64 == 0x123456789abcdef0);
	MUST(eventfd_read(member, &v));
	WANT(epoll_wait(inner, e, 2, 0) == 0);
	return true;
}

static int signals;

static void queue(int round) {
	union sigval v = {.sival_int = 100 + round};
	MUST(kill(getpid(), SIGUSR2));
	MUST(sigqueue(getpid(), SIGRTMIN + 1, v));
	v.sival_int += 1000;
	MUST(sigqueue(getpid(), SIGRTMIN + 1, v));
}

static void make_signalfd(void) {
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN + 1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	signals = MUST(signalfd(-1, &set, SFD_NONBLOCK));
	queue(0);
}

static bool check_signalfd(int round) {
	struct signalfd_siginfo s[4];
	WANT(read(signals, s, sizeof s) == 3 * sizeof s[0]);
	WANT(s[0].ssi_signo == SIGUSR2 && s[0].ssi_pid == (uint32_t)getpid());
	WANT(s[1].ssi_signo == (uint32_t)SIGRTMIN + 1 && s[1].ssi_int == 100 + round);
	WANT(s[2].ssi_signo == (uint32_t)SIGRTMIN + 1 && s[2].ssi_int == 1100 + round);
	queue(round + 1);
	return true;
}

// On a tmpfs: a watch on a file of an overlay cannot be captured.
static int watcher, watched;
#define DIRECTORY "/dev/shm/directory"
#define WATCHED DIRECTORY "/watched"

static void make_inotify(void) {
	MUST(mkdir(DIRECTORY, 0700));
	close(MUST(open(WATCHED, O_CREAT | O_WRONLY, 0600)));
	watcher = MUST(inotify_init1(IN_NONBLOCK));
	watched = MUST(inotify_add_watch(watcher, WATCHED, IN_MODIFY));
	MUST(inotify_add_watch(watcher, DIRECTORY, IN_CREATE | IN_ONLYDIR));
}

static bool check_inotify(int round) {
	char b[4096] __attribute__((aligned(8)));
	const struct inotify_event *e = (void *)b;
	WANT(read(watcher, b, sizeof b) == -1 && errno == EAGAIN);
	int fd = open(WATCHED, O_WRONLY);
	WANT(fd >= 0 && write(fd, "x", 1) == 1);
	close(fd);
	WANT(readable(watcher) && read(watcher, b, sizeof b) == sizeof *e);
	WANT(e->wd == watched && e->mask == IN_MODIFY);
	const char *file = text(DIRECTORY "/file", round);
	close(MUST(open(file, O_CREAT | O_WRONLY, 0600)));
	WANT(readable(watcher) && read(watcher, b, sizeof b) > 0);
	WANT(e->mask == IN_CREATE && strcmp(e->name, strrchr(file, '/') + 1) == 0);
	return true;
}

// The three kinds of locks, seen by a process that asks for the same.
#define LOCKED "/locked"
static int flocked, posix, ofd;

static struct flock range(short type, off_t start) {
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 10};
}

static void make_locks(void) {
	flocked = MUST(open(LOCKED ".flock", O_CREAT | O_RDWR, 0600));
	posix = MUST(open(LOCKED ".posix", O_CREAT | O_RDWR, 0600));
	ofd = MUST(open(LOCKED ".ofd", O_CREAT | O_RDWR, 0600));
	MUST(flock(flocked, LOCK_EX));
	struct flock l = range(F_WRLCK, 20);
	MUST(fcntl(posix, F_SETLK, &l));
	l = range(F_RDLCK, 40);
	MUST(fcntl(ofd, F_OFD_SETLK, &l));
}

static void ask_for_locks(void) {
	int fd = MUST(open(LOCKED ".flock", O_RDWR));
	if (flock(fd, LOCK_EX | LOCK_NB) != -1 || errno != EWOULDBLOCK)
		_exit(1);
	struct flock l = range(F_WRLCK, 25);
	MUST(fcntl(MUST(open(LOCKED ".posix", O_RDWR)), F_GETLK, &l));
	if (l.l_type != F_WRLCK || l.l_pid != getppid() || l.l_start != 20 || l.l_len != 10)
		_exit(2);
	l = range(F_WRLCK, 45);
	fd = MUST(open(LOCKED ".ofd", O_RDWR));
	MUST(fcntl(fd, F_OFD_GETLK, &l));
	if (l.l_type != F_RDLCK || l.l_pid != -1 || l.l_start != 40)
		_exit(3);
	l = range(F_WRLCK, 60);
	if (fcntl(fd, F_OFD_SETLK, &l) == -1) // beside it all is free
		_exit(4);
}

static bool check_locks(int round) {
	int status = -1;
	(void)round;
	WANT(waitpid(child(ask_for_locks), &status, 0) > 0 && status == 0);
	return true;
}

static int fd_of_child;
static pid_t pid_of_child;

static void sleep_on(void) {
	for (;;)
		pause();
}

static void make_pidfd(void) {
	pid_of_child = child(sleep_on);
	fd_of_child = MUST(pidfd_open(pid_of_child, 0));
}

// Ends the child through the descriptor in every round, and has another.
static bool check_pidfd(int round) {
	siginfo_t info = {0};
	struct pollfd p = {.fd = fd_of_child, .events = POLLIN};
	(void)round;
	WANT(poll(&p, 1, 0) == 0);
	WANT(pidfd_send_signal(fd_of_child, SIGKILL, NULL, 0) == 0);
	WANT(readable(fd_of_child) && waitid(P_PIDFD, fd_of_child, &info, WEXITED) == 0 && info.si_pid == pid_of_child);
	close(fd_of_child);
	make_pidfd();
	return true;
}

const struct object descriptors[] = {
	{"memfd", make_memfd, check_memfd},
	{"sealed-memfd", make_sealed, check_sealed},
	{"pipe", make_pipe, check_pipe},
	{"socketpairs", make_pairs, check_pairs},
	{"passed-descriptor", make_passed, check_passed},
	{"eventfd", make_eventfd, check_eventfd},
	{"nested-epoll", make_epoll, check_epoll},
	{"signalfd", make_signalfd, check_signalfd},
	{"inotify", make_inotify, check_inotify},
	{"locks", make_locks, check_locks},
	{"pidfd", make_pidfd, check_pidfd},
	{0},
};
