// What cannot be captured as it is: a capture is refused, and the program goes on.
#include "check.h"
#include <mqueue.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

static int semaphore;

static void make_semaphore(void) { semaphore = MUST(eventfd(3, EFD_SEMAPHORE)); }

static bool check_semaphore(int round) {
	eventfd_t v = 0;
	(void)round;
	for (int i = 0; i < 3; i++)
		WANT(readable(semaphore) && eventfd_read(semaphore, &v) == 0 && v == 1);
	MUST(eventfd_write(semaphore, 3));
	return true;
}

// A client that nobody has accepted yet, with what it said already.
static int door, visitor;
static const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/hatch"};

static void visit(int round) {
	visitor = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	MUST(connect(visitor, (void *)&address, sizeof address));
	MUST(send(visitor, text("visitor", round), strlen(text("visitor", round)), 0));
}

static void make_talking(void) {
	door = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	MUST(bind(door, (void *)&address, sizeof address));
	MUST(listen(door, 5));
	visit(0);
}

static bool check_talking(int round) {
	int server = accept(door, NULL, NULL);
	WANT(server >= 0 && holds(server, text("visitor", round)));
	close(server);
	close(visitor);
	visit(round + 1);
	return true;
}

static mqd_t queue;

static void make_queue(void) {
	struct mq_attr a = {.mq_maxmsg = 4, .mq_msgsize = 64};
	queue = MUST(mq_open("/queue", O_CREAT | O_RDWR, 0600, &a));
	MUST(mq_send(queue, text("message", 0), 64, 3));
}

static bool check_queue(int round) {
	char b[64];
	unsigned priority;
	WANT(mq_receive(queue, b, sizeof b, &priority) > 0 && strcmp(b, text("message", round)) == 0 && priority == 3);
	WANT(mq_send(queue, text("message", round + 1), 64, 3) == 0);
	return true;
}

const struct object refused[] = {
	{"counting-eventfd", make_semaphore, check_semaphore},
	{"talking-client", make_talking, check_talking},
	{"message-queue", make_queue, check_queue},
	{0},
};
