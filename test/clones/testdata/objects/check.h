// What the objects of the test program have in common.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

// An object is made once, before the program says that it is ready, and checked in
// each round, from 0 on. A check finds what the round before it left, and leaves
// something else: what two programs share unawares would be seen.
struct object {
	const char *name;
	void (*make)(void);
	bool (*check)(int round);
};

extern const struct object descriptors[], sockets[], timers[], shared[], processes[], rights[], refused[], lost[];

void die(const char *what);

// MUST ends the program if a call fails, whose result it is otherwise.
#define MUST(call)                                                                                                     \
	({                                                                                                             \
		__typeof__(call) result_ = (call);                                                                     \
		if (result_ == (__typeof__(call))-1)                                                                   \
			die(#call);                                                                                    \
		result_;                                                                                               \
	})

// WANT makes a check fail that does not find what it should.
#define WANT(condition)                                                                                                \
	do {                                                                                                           \
		errno = 0;                                                                                             \
		if (!(condition)) {                                                                                    \
			printf("wrong: line %d of %s: %s (%m)\n", __LINE__, __FILE__, #condition);                     \
			return false;                                                                                  \
		}                                                                                                      \
	} while (0)

// A text that differs from round to round.
const char *text(const char *what, int round);

// Whether fd has these bytes to read, as one message or at the head of a stream.
bool holds(int fd, const char *want);

// Whether fd becomes readable in time, which is long.
bool readable(int fd);

// A process that does f, and ends with this one.
pid_t child(void (*f)(void));

// The state of a process, as in /proc/PID/stat; 0 if there is none.
char state(pid_t pid);

// Whether a process comes to a state in time.
bool comes_to(pid_t pid, char want);
