// Holds as many MiB as its argument says, each page with a content of its own, and listens on
// port 8000. GET /N reads, checks and changes one page in every hundred/N, N from 1 to 100,
// that it has not changed since it was asked for /0, and then answers. /0 changes nothing.
#include <arpa/inet.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAGE 4096
#define WORDS (PAGE / 8)

static uint64_t *memory;
static size_t pages;
static int touched; // percent

static uint64_t word(size_t page, size_t i) { return (page * WORDS + i) * 0x9e3779b97f4a7c15u | 1; }

static void fill(void)
{
	for (size_t p = 0; p < pages; p++)
		for (size_t i = 0; i < WORDS; i++)
			memory[p * WORDS + i] = word(p, i);
}

// Pages p with (p * 37) % 100 in [from, to): evenly spread, not in a row.
static int touch(int from, int to)
{
	for (size_t p = 0; p < pages; p++) {
		int n = p * 37 % 100;
		if (n < from || n >= to)
			continue;
		uint64_t *w = memory + p * WORDS;
		if (w[0] != word(p, 0) || w[WORDS - 1] != word(p, WORDS - 1))
			return 0;
		w[1]++;
	}
	return 1;
}

static void serve(int c)
{
	char request[1024], answer[128];
	ssize_t n = read(c, request, sizeof request - 1);
	if (n <= 0)
		return;
	request[n] = 0;
	int percent = 0, ok = 1;
	sscanf(request, "GET /%d", &percent);
	if (percent == 0)
		touched = 0;
	if (percent > touched && percent <= 100) {
		ok = touch(touched, percent);
		touched = percent;
	}
	n = snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", ok ? "200 OK" : "500 Wrong");
	if (write(c, answer, n) != n)
		perror("write");
}

int main(int argc, char **argv)
{
	if (argc != 2 || atoi(argv[1]) <= 0) {
		fprintf(stderr, "usage: touch MIB\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	pages = (size_t)atoi(argv[1]) * 256;
	memory = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	fill();
	int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(8000)};
	if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 64)) {
		perror("listen");
		return 1;
	}
	for (;;) {
		int c = accept(s, 0, 0);
		if (c < 0)
			continue;
		serve(c);
		close(c);
	}
}
