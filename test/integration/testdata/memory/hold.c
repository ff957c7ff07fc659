// Holds 200 MB. At SIGUSR1 it checks every byte, writes to one page in a hundred, checks
// again and says so.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WORDS = (200 << 20) / sizeof(uint64_t), PAGE = 4096 / sizeof(uint64_t) };

static uint64_t mix(uint64_t x) {
	x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15u;
	return x ^ (x >> 29);
}

int main(void) {
	uint64_t *words = malloc(WORDS * sizeof *words), written = 0;
	sigset_t set;
	int sig;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (uint64_t i = 0; i < WORDS; i++)
		words[i] = mix(i);
	for (;;) {
		printf("ok %llu\n", (unsigned long long)written);
		fflush(stdout);
		sigwait(&set, &sig);
		for (int twice = 0; twice < 2; twice++) {
			for (uint64_t i = 0; i < WORDS; i++) {
				uint64_t want = i % (100 * PAGE) == 7 ? mix(i) + written : mix(i);
				if (words[i] != want) {
					printf("wrong: word %llu is %#llx\n", (unsigned long long)i, (unsigned long long)words[i]);
					fflush(stdout);
					return 3;
				}
			}
			if (twice == 0) {
				written += (uint64_t)getpid() + (uint64_t)random();
				for (uint64_t i = 7; i < WORDS; i += 100 * PAGE)
					words[i] = mix(i) + written;
			}
		}
	}
}
