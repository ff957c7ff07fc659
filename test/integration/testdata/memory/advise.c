// Gives anonymous memory back to the kernel at SIGUSR1, and says what it reads then.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int main(void) {
	size_t size = 4 << 20, seen = 0;
	unsigned char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigset_t set;
	int sig;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	memset(p, 0x5a, size);
	printf("ok\n");
	for (;;) {
		fflush(stdout);
		sigwait(&set, &sig);
		madvise(p, size, MADV_DONTNEED);
		for (size_t i = seen = 0; i < size; i++)
			seen += p[i] != 0;
		printf("after madvise: %s\n", seen == 0 ? "zeroes" : "stale");
	}
}

