// Allocates, frees, grows and clears memory for ever, in several threads, and checks
// every byte of it. Each thread says "ok" after a round in which all was right, and the
// program ends with "wrong" at the first byte that is not.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 3, SLOTS = 150, KEPT = 8 << 20 };

// The ways of glibc, tcmalloc, mimalloc and jemalloc to give all free pages back.
__attribute__((weak)) int malloc_trim(size_t);
__attribute__((weak)) void MallocExtension_ReleaseFreeMemory(void);
__attribute__((weak)) void mi_collect(int);
__attribute__((weak)) int mallctl(const char *, void *, size_t *, void *, size_t);

static void give_back(void) {
	if (malloc_trim)
		malloc_trim(0);
	if (MallocExtension_ReleaseFreeMemory)
		MallocExtension_ReleaseFreeMemory();
	if (mi_collect)
		mi_collect(1);
	if (mallctl)
		mallctl("arena.4096.purge", NULL, NULL, NULL, 0); // of all arenas
}

struct slot {
	unsigned char *p;
	size_t size;
	uint32_t seed;
};

static unsigned char byte(uint32_t seed, size_t i) { return (unsigned char)((seed + i * 2654435761u) >> 13) | 1; }

static void wrong(const char *what, size_t i, size_t size, int got) {
	printf("wrong: %s: byte %zu of %zu is %#x\n", what, i, size, got);
	fflush(stdout);
	_exit(3);
}

static void fill(struct slot *s, size_t from) {
	for (size_t i = from; i < s->size; i++)
		s->p[i] = byte(s->seed, i);
}

static void check(const char *what, const struct slot *s, size_t size) {
	for (size_t i = 0; i < size; i++)
		if (s->p[i] != byte(s->seed, i))
			wrong(what, i, size, s->p[i]);
}

// Most are small, some are as large as what allocators map by itself.
static size_t size_of(uint32_t r) {
	switch (r % 16) {
	case 0:
		return 1 + (r >> 8) % (1 << 20);
	case 1:
	case 2:
		return 1 + (r >> 8) % (64 << 10);
	}
	return 1 + (r >> 8) % 4096;
}

static void get(struct slot *s, uint32_t r) {
	s->size = size_of(r);
	s->seed = r;
	if (r & 64) {
		s->p = calloc(1, s->size);
		for (size_t i = 0; s->p && i < s->size; i++)
			if (s->p[i])
				wrong("calloc", i, s->size, s->p[i]);
	} else {
		s->p = malloc(s->size);
	}
	if (!s->p)
		wrong("no memory", 0, s->size, 0);
	fill(s, 0);
}

static void grow(struct slot *s) {
	size_t old = s->size, size = old * 2 + 4096;
	unsigned char *p = realloc(s->p, size);
	if (!p)
		wrong("no memory", 0, size, 0);
	s->p = p;
	check("realloc", s, old);
	s->size = size;
	fill(s, old);
}

static void *work(void *arg) {
	uint32_t r = (uint32_t)(uintptr_t)arg * 977 + 1;
	struct slot *slots = calloc(SLOTS, sizeof *slots);
	struct slot kept = {malloc(KEPT), KEPT, r};
	fill(&kept, 0);
	for (int i = 0; i < SLOTS; i++)
		get(&slots[i], r = r * 1664525 + 1013904223);
	for (unsigned round = 0;; round++) {
		// Most of it is freed at once, so that whole pages are given back.
		for (int i = 0; i < SLOTS; i++) {
			r = r * 1664525 + 1013904223;
			check("slot", &slots[i], slots[i].size);
			if (slots[i].size > 4 << 20 || (r >> 16) % 4) {
				free(slots[i].p);
				slots[i].p = NULL;
			} else if ((r >> 24) % 3 == 0) {
				grow(&slots[i]);
			}
		}
		give_back();
		for (int i = 0; i < SLOTS; i++)
			if (!slots[i].p)
				get(&slots[i], r = r * 1664525 + 1013904223);
		check("kept", &kept, KEPT);
		printf("ok %u\n", round);
		fflush(stdout);
		usleep(50000);
	}
	return NULL;
}

int main(void) {
	pthread_t t;
	for (uintptr_t i = 1; i < THREADS; i++)
		if (pthread_create(&t, NULL, work, (void *)i))
			return 1;
	work(0);
}
