// A parent and a child that hold an area of each kind. At SIGUSR1 both check the content
// of each, and that each still behaves as its kind does; the parent says "ok". At SIGUSR2
// the parent has the child dump core, and makes another.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 256, HUGE = 512, STACK = 128 * PAGE, CODE = 42 };
enum { INSTALL_GUARD = 102 }; // MADV_GUARD_INSTALL, of Linux 6.13, is in no header yet
enum who { PARENT, CHILD, GRANDCHILD };

enum {
	KEPT, WRITTEN, READONLY, NONE, SPLIT, GUARDED, GROWSDOWN, LOCKED, WIPED, NOTFORKED, NOTDUMPED, ADVISED, EXECUTABLE,
	PRIVATE_MEMFD, PRIVATE_HUGE,
	ANONYMOUS, MEMFD, POSIX, SYSV, FILED, SHARED_HUGE, // parent and child share these
	AREAS
};

static struct area {
	const char *name;
	size_t pages;
	unsigned char *p;
} areas[AREAS] = {
	{"kept", PAGES}, {"written", PAGES}, {"readonly", PAGES}, {"none", PAGES}, {"split", 3 * PAGES}, {"guarded", PAGES},
	{"growsdown", PAGES}, {"locked", PAGES}, {"wiped", PAGES}, {"notforked", PAGES}, {"notdumped", PAGES}, {"advised", PAGES},
	{"executable", PAGES}, {"private-memfd", PAGES}, {"private-huge", HUGE},
	{"anonymous", PAGES}, {"memfd", PAGES}, {"posix", PAGES}, {"sysv", PAGES}, {"filed", PAGES}, {"shared-huge", HUGE},
};

static enum who who;
static int peer, round_;
static pid_t child;
static unsigned char *on_stack, *on_thread, **on_heap, *vdso;

#define WANT(what, condition)                                                                                          \
	do {                                                                                                           \
		if (!(condition)) {                                                                                    \
			printf("wrong: %s: line %d in process %d: %s (%m)\n", what, __LINE__, who, #condition);        \
			fflush(stdout);                                                                                \
			_exit(3);                                                                                      \
		}                                                                                                      \
	} while (0)

static sigjmp_buf back;

static void caught(int sig) { siglongjmp(back, sig); }

// Whether a read, or a write, is not allowed.
static int faults(volatile unsigned char *p, int write) {
	if (sigsetjmp(back, 1))
		return 1;
	if (write)
		*p = *p;
	else
		(void)*p;
	return 0;
}

// The content follows from the address.
static uint64_t word(size_t n, const unsigned char *p) { return (uint64_t)(n + 1) << 56 ^ (uintptr_t)p; }

static void fill(size_t n, unsigned char *p, size_t size) {
	for (uint64_t *w = (uint64_t *)p; (unsigned char *)w < p + size; w++)
		*w = word(n, (unsigned char *)w);
}

static void same(const char *what, size_t n, unsigned char *p, size_t size) {
	for (uint64_t *w = (uint64_t *)p; (unsigned char *)w < p + size; w++)
		WANT(what, *w == word(n, (unsigned char *)w));
}

static void *map(size_t n, int flags, int fd) {
	size_t size = areas[n].pages * PAGE;
	// An area of its own: the kernel merges neighbours.
	unsigned char *p = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	WANT(areas[n].name, p != MAP_FAILED);
	if (flags & MAP_HUGETLB) {
		munmap(p, size + 2 * PAGE);
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
		WANT(areas[n].name, p != MAP_FAILED);
		return areas[n].p = p;
	}
	munmap(p, PAGE);
	munmap(p + PAGE + size, PAGE);
	WANT(areas[n].name, mmap(p + PAGE, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0) == p + PAGE);
	return areas[n].p = p + PAGE;
}

static int sized(size_t n, int fd) {
	WANT(areas[n].name, fd >= 0 && ftruncate(fd, areas[n].pages * PAGE) == 0);
	return fd;
}

static void *hold(void *arg) {
	unsigned char local[STACK] __attribute__((aligned(8)));
	(void)arg;
	fill(AREAS, local, sizeof local);
	__atomic_store_n(&on_thread, local, __ATOMIC_RELEASE);
	for (;;)
		pause();
	return NULL;
}

static void make(void) {
	pthread_t t;
	for (size_t n = KEPT; n <= EXECUTABLE; n++)
		if (n != GROWSDOWN)
			map(n, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	// With room below to grow into.
	areas[GROWSDOWN].p = mmap((void *)0x4000000000, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
	WANT("growsdown", areas[GROWSDOWN].p != MAP_FAILED);
	map(PRIVATE_MEMFD, MAP_PRIVATE, sized(PRIVATE_MEMFD, memfd_create("private", 0)));
	map(PRIVATE_HUGE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	map(ANONYMOUS, MAP_SHARED | MAP_ANONYMOUS, -1);
	map(MEMFD, MAP_SHARED, sized(MEMFD, memfd_create("shared", 0)));
	map(POSIX, MAP_SHARED, sized(POSIX, shm_open("/areas", O_RDWR | O_CREAT, 0600)));
	areas[SYSV].p = shmat(shmget(IPC_PRIVATE, PAGES * PAGE, IPC_CREAT | 0600), NULL, 0);
	WANT("sysv", areas[SYSV].p != (void *)-1);
	map(FILED, MAP_SHARED, sized(FILED, open("/areas", O_RDWR | O_CREAT, 0600)));
	map(SHARED_HUGE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1);
	for (size_t n = 0; n < AREAS; n++)
		fill(n, areas[n].p, areas[n].pages * PAGE);

	WANT("readonly", mprotect(areas[READONLY].p, PAGES * PAGE, PROT_READ) == 0);
	WANT("none", mprotect(areas[NONE].p, PAGES * PAGE, PROT_NONE) == 0);
	WANT("split", mprotect(areas[SPLIT].p + PAGES * PAGE, PAGES * PAGE, PROT_READ) == 0);
	WANT("guarded", madvise(areas[GUARDED].p + 100 * PAGE, 2 * PAGE, INSTALL_GUARD) == 0);
	WANT("locked", mlock(areas[LOCKED].p, PAGES * PAGE) == 0);
	WANT("wiped", madvise(areas[WIPED].p, PAGES * PAGE, MADV_WIPEONFORK) == 0);
	WANT("notforked", madvise(areas[NOTFORKED].p, PAGES * PAGE, MADV_DONTFORK) == 0);
	WANT("notdumped", madvise(areas[NOTDUMPED].p, PAGES * PAGE, MADV_DONTDUMP) == 0);
	WANT("advised", madvise(areas[ADVISED].p, PAGES * PAGE, MADV_NOHUGEPAGE) == 0);
#ifdef __x86_64__
	memcpy(areas[EXECUTABLE].p + PAGE, (unsigned char[]){0xb8, CODE, 0, 0, 0, 0xc3}, 6);
#else
	memcpy(areas[EXECUTABLE].p + PAGE, (uint32_t[]){0x52800000 | CODE << 5, 0xd65f03c0}, 8);
#endif
	WANT("executable", mprotect(areas[EXECUTABLE].p, PAGES * PAGE, PROT_READ | PROT_EXEC) == 0);
	__builtin___clear_cache((char *)areas[EXECUTABLE].p + PAGE, (char *)areas[EXECUTABLE].p + PAGE + 8);

	on_heap = calloc(PAGES, sizeof *on_heap);
	for (size_t i = 0; i < PAGES; i++)
		fill(AREAS, on_heap[i] = malloc(PAGE), PAGE);
	vdso = (unsigned char *)getauxval(AT_SYSINFO_EHDR);
	WANT("thread", pthread_create(&t, NULL, hold, NULL) == 0);
	while (!__atomic_load_n(&on_thread, __ATOMIC_ACQUIRE))
		usleep(1000);
}

// Deeper than the stack ever was.
static __attribute__((noinline)) void deep(void) {
	unsigned char local[8 * STACK] __attribute__((aligned(8)));
	fill(AREAS, local, sizeof local);
	same("stack", AREAS, local, sizeof local);
}

static void check_private(void) {
	for (size_t n = 0; n < ANONYMOUS; n++) {
		struct area *a = &areas[n];
		size_t size = a->pages * PAGE, third = PAGES * PAGE;
		switch (n) {
		case WRITTEN:
			same(a->name, n, a->p, 3 * PAGE);
			same(a->name, n, a->p + 4 * PAGE, size - 4 * PAGE);
			for (size_t i = 0; i < PAGE; i++)
				WANT(a->name, round_ == 0 || a->p[3 * PAGE + i] == 16 * who + round_ % 16);
			memset(a->p + 3 * PAGE, 16 * who + (round_ + 1) % 16, PAGE);
			break;
		case READONLY:
			same(a->name, n, a->p, size);
			WANT(a->name, faults(a->p + PAGE, 1));
			break;
		case NONE:
			WANT(a->name, faults(a->p + PAGE, 0));
			WANT(a->name, mprotect(a->p, size, PROT_READ) == 0);
			same(a->name, n, a->p, size);
			WANT(a->name, mprotect(a->p, size, PROT_NONE) == 0 && faults(a->p + PAGE, 0));
			break;
		case SPLIT:
			same(a->name, n, a->p, size);
			WANT(a->name, faults(a->p + third, 1) && faults(a->p + 2 * third - 1, 1) && !faults(a->p + third - 1, 1) && !faults(a->p + 2 * third, 1));
			break;
		case GUARDED:
			same(a->name, n, a->p, 100 * PAGE);
			same(a->name, n, a->p + 102 * PAGE, size - 102 * PAGE);
			WANT(a->name, faults(a->p + 100 * PAGE, 0) && faults(a->p + 102 * PAGE - 1, 1));
			break;
		case GROWSDOWN:
			same(a->name, n, a->p, size);
			for (int i = 0; i < 16; i++) {
				WANT(a->name, !faults(a->p - PAGE, 1) && a->p[-1] == 0);
				fill(n, a->p -= PAGE, PAGE);
				a->pages++;
			}
			break;
		case WIPED:
			if (who == PARENT)
				same(a->name, n, a->p, size);
			for (size_t i = 0; who != PARENT && i < size; i++)
				WANT(a->name, a->p[i] == 0);
			break;
		case NOTFORKED:
			if (who == PARENT)
				same(a->name, n, a->p, size);
			else
				WANT(a->name, faults(a->p, 0));
			break;
		case EXECUTABLE:
			WANT(a->name, ((int (*)(void))(a->p + PAGE))() == CODE);
			same(a->name, n, a->p + 2 * PAGE, size - 2 * PAGE);
			WANT(a->name, faults(a->p, 1));
			break;
		default:
			same(a->name, n, a->p, size);
		}
	}
	for (size_t i = 0; i < PAGES; i++)
		same("heap", AREAS, on_heap[i], PAGE);
	same("stack", AREAS, on_stack, STACK);
	same("thread's stack", AREAS, on_thread, STACK);
	deep();
	struct timespec a, b;
	WANT("vdso", memcmp(vdso, "\177ELF", 4) == 0);
	WANT("vdso", clock_gettime(CLOCK_MONOTONIC, &a) == 0 && syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b) == 0);
	WANT("vdso", b.tv_sec - a.tv_sec >= 0 && b.tv_sec - a.tv_sec <= 60);
}

// The parent writes its mark to what is shared, the child another.
static void check_shared(uint64_t mine, uint64_t other) {
	for (size_t n = ANONYMOUS; n < AREAS; n++) {
		uint64_t *mark = (uint64_t *)areas[n].p;
		WANT(areas[n].name, !other || *mark == other);
		same(areas[n].name, n, areas[n].p + 8, areas[n].pages * PAGE - 8);
		*mark = mine;
	}
}

static void make_child(void) {
	int ends[2];
	WANT("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
	WANT("fork", (child = fork()) >= 0);
	if (child) {
		close(ends[1]);
		peer = ends[0];
		return;
	}
	close(ends[0]);
	peer = ends[1];
	who = CHILD;
	for (round_ = 0;; round_++) {
		uint64_t mark;
		if (read(peer, &mark, sizeof mark) != sizeof mark)
			_exit(0);
		check_private();
		check_shared(~mark, mark);
		WANT("answer", write(peer, &mark, sizeof mark) == sizeof mark);
	}
}

static void check(void) {
	uint64_t mark = 1000 + round_, answer = 0;
	int status;
	check_private();
	check_shared(mark, 0);
	WANT("child", write(peer, &mark, sizeof mark) == sizeof mark && read(peer, &answer, sizeof answer) == sizeof answer && answer == mark);
	check_shared(0, ~mark);
	// A fork sees what is to be wiped as zeroes, and what it writes is its own.
	pid_t p = fork();
	if (p == 0) {
		who = GRANDCHILD;
		round_ = 0;
		check_private();
		fill(AREAS, areas[KEPT].p, PAGES * PAGE);
		_exit(0);
	}
	WANT("fork", p > 0 && waitpid(p, &status, 0) == p && status == 0);
	same("kept", KEPT, areas[KEPT].p, PAGES * PAGE);
	printf("ok %d\n", round_++);
}

int main(void) {
	unsigned char local[STACK] __attribute__((aligned(8)));
	sigset_t set;
	int sig, status;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGSEGV, caught);
	signal(SIGBUS, caught);
	fill(AREAS, on_stack = local, sizeof local);
	make();
	make_child();
	for (size_t n = 0; n < AREAS; n++)
		printf("area %s %zu %p\n", areas[n].name, n, areas[n].p);
	for (;;) {
		printf("child %d\n", child);
		fflush(stdout);
		sigwait(&set, &sig);
		if (sig == SIGUSR1) {
			check();
			continue;
		}
		WANT("core", kill(child, SIGABRT) == 0 && waitpid(child, &status, 0) == child && WCOREDUMP(status));
		close(peer);
		make_child();
		printf("dumped\n");
	}
}
