// A tree of processes that share memory copy-on-write: a parent with two children, one of
// which has a child, as servers with workers are. Each wrote to some pages of what it
// inherited, and got an area of its own. Each checks all of it for ever, while it
// writes to it, and says "ok".
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 8192, SIZE = 4096 };

static unsigned char *shared, *own;
static uint64_t who;

// What page i holds in process who: every process changed other pages.
static uint64_t owner(size_t i, uint64_t of) {
	if (of == 0 || i % 97 != of)
		return of >= 3 && i % 97 == 2 ? 2 : 0; // 3 is a child of 2
	return of;
}

static uint64_t word(size_t i, uint64_t of, uint64_t round) { return (i + 1) * 0x9e3779b97f4a7c15u ^ of << 56 ^ round; }

static void put(unsigned char *p, uint64_t v) {
	for (size_t i = 0; i < SIZE; i += 8)
		memcpy(p + i, &v, 8);
}

static void check(const char *what, const unsigned char *p, size_t page, uint64_t v) {
	for (size_t i = 0; i < SIZE; i += 8)
		if (memcmp(p + i, &v, 8) != 0) {
			printf("wrong: %s of process %llu: page %zu\n", what, (unsigned long long)who, page);
			fflush(stdout);
			_exit(3);
		}
}

static void live(void) {
	for (uint64_t round = 0;; round++) {
		for (size_t i = 0; i < PAGES; i++) {
			if (i % 1000 == 500) // written in each round
				check("what is written", shared + i * SIZE, i, round ? word(i, who, round) : word(i, owner(i, who), 0));
			else
				check("what is shared", shared + i * SIZE, i, word(i, owner(i, who), 0));
			if (i % 16 == 0)
				check("what is its own", own + i / 16 * SIZE, i, word(i, who, 9));
		}
		for (size_t i = 500; i < PAGES; i += 1000)
			put(shared + i * SIZE, word(i, who, round + 1));
		printf("ok %llu\n", (unsigned long long)who);
		fflush(stdout);
		usleep(100000);
	}
}

static void become(uint64_t n) {
	who = n;
	for (size_t i = 0; i < PAGES; i++)
		if (n && i % 97 == n)
			put(shared + i * SIZE, word(i, n, 0));
	own = mmap(NULL, PAGES / 16 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < PAGES; i += 16)
		put(own + i / 16 * SIZE, word(i, n, 9));
}

int main(void) {
	shared = mmap(NULL, PAGES * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < PAGES; i++)
		put(shared + i * SIZE, word(i, 0, 0));
	if (fork() == 0) {
		become(1);
		live();
	}
	if (fork() == 0) {
		become(2);
		if (fork() == 0)
			become(3);
		live();
	}
	become(0);
	live();
}
