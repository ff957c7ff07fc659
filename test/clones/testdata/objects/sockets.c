// Sockets with an address: UDP, Unix ones in the file system and beside it, netlink.
#include "check.h"
#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static bool pass(int from, int to, const char *what) {
	return send(from, what, strlen(what), 0) == (ssize_t)strlen(what) && holds(to, what);
}

static struct sockaddr_in at(uint16_t port) {
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int udp(uint16_t port) {
	struct sockaddr_in a = at(port);
	int fd = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	MUST(bind(fd, (void *)&a, sizeof a));
	return fd;
}

enum { BOUND = 7001, LEFT = 7002, RIGHT = 7003, SIX = 7004, ROOM = 65536 };
static int bound, left, right, six;

static void make_udp(void) {
	struct sockaddr_in a;
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(SIX), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int room = ROOM;
	bound = udp(BOUND);
	MUST(setsockopt(bound, SOL_SOCKET, SO_RCVBUF, &room, sizeof room));
	left = udp(LEFT);
	right = udp(RIGHT);
	a = at(RIGHT);
	MUST(connect(left, (void *)&a, sizeof a));
	a = at(LEFT);
	MUST(connect(right, (void *)&a, sizeof a));
	six = MUST(socket(AF_INET6, SOCK_DGRAM, 0));
	MUST(bind(six, (void *)&a6, sizeof a6));
}

static bool check_udp(int round) {
	struct sockaddr_in a;
	struct sockaddr_in6 a6;
	socklen_t n = sizeof a;
	int room = 0;
	WANT(getsockname(bound, (void *)&a, &n) == 0 && ntohs(a.sin_port) == BOUND);
	WANT(sendto(bound, "self", 4, 0, (void *)&a, n) == 4 && holds(bound, "self"));
	n = sizeof room;
	WANT(getsockopt(bound, SOL_SOCKET, SO_RCVBUF, &room, &n) == 0 && room == 2 * ROOM);
	n = sizeof a;
	WANT(getpeername(left, (void *)&a, &n) == 0 && ntohs(a.sin_port) == RIGHT);
	WANT(pass(left, right, text("right", round)) && pass(right, left, text("left", round)));
	// A connected socket hears nobody else.
	a = at(LEFT);
	WANT(sendto(bound, "stranger", 8, 0, (void *)&a, sizeof a) == 8);
	WANT(recv(left, &n, sizeof n, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	n = sizeof a6;
	WANT(getsockname(six, (void *)&a6, &n) == 0 && ntohs(a6.sin6_port) == SIX);
	WANT(sendto(six, "six", 3, 0, (void *)&a6, n) == 3 && holds(six, "six"));
	return true;
}

// An address in the file system, or beside it if the name begins with '@'.
static socklen_t named(struct sockaddr_un *a, const char *name) {
	memset(a, 0, sizeof *a);
	a->sun_family = AF_UNIX;
	strcpy(a->sun_path, name);
	if (*name == '@')
		a->sun_path[0] = 0;
	return offsetof(struct sockaddr_un, sun_path) + strlen(name) + (*name != '@');
}

static int listening(const char *name, int type) {
	struct sockaddr_un a;
	socklen_t n = named(&a, name);
	int fd = MUST(socket(AF_UNIX, type, 0));
	MUST(bind(fd, (void *)&a, n));
	if (type != SOCK_DGRAM)
		MUST(listen(fd, 5));
	return fd;
}

static int connected(const char *name, int type) {
	struct sockaddr_un a;
	socklen_t n = named(&a, name);
	int fd = MUST(socket(AF_UNIX, type, 0));
	if (connect(fd, (void *)&a, n) != 0)
		return -1;
	return fd;
}

struct served {
	const char *name;
	int type;
	// The listener, and both ends of a connection to it. A datagram socket has no ends.
	int listener, client, server;
};

static void serve(struct served *s) {
	s->listener = listening(s->name, s->type);
	s->client = MUST(connected(s->name, s->type));
	s->server = s->type == SOCK_DGRAM ? s->listener : MUST(accept(s->listener, NULL, NULL));
	MUST(send(s->client, text(s->name, 0), strlen(text(s->name, 0)), 0));
}

static bool serves(struct served *s, int round) {
	struct sockaddr_un a, want;
	socklen_t n = sizeof a, size = named(&want, s->name);
	WANT(getsockname(s->listener, (void *)&a, &n) == 0 && n == size && memcmp(&a, &want, n) == 0);
	WANT(holds(s->server, text(s->name, round)));
	WANT(send(s->client, text(s->name, round + 1), strlen(text(s->name, round + 1)), 0) > 0);
	if (s->type == SOCK_DGRAM)
		return true;
	WANT(pass(s->server, s->client, "back"));
	// New clients are served, too.
	int client = connected(s->name, s->type);
	WANT(client >= 0);
	int server = accept(s->listener, NULL, NULL);
	WANT(server >= 0 && pass(client, server, "new"));
	close(client);
	close(server);
	return true;
}

static struct served in_layer[] = {{"/run/stream", SOCK_STREAM}, {"/run/datagram", SOCK_DGRAM}, {"/run/packet", SOCK_SEQPACKET}};
static struct served beside[] = {{"@stream", SOCK_STREAM}, {"@datagram", SOCK_DGRAM}, {"@packet", SOCK_SEQPACKET}};

static void make_unix(void) {
	for (int i = 0; i < 3; i++)
		serve(&in_layer[i]);
}

static bool check_unix(int round) {
	for (int i = 0; i < 3; i++)
		if (!serves(&in_layer[i], round))
			return false;
	return true;
}

static void make_abstract(void) {
	for (int i = 0; i < 3; i++)
		serve(&beside[i]);
}

static bool check_abstract(int round) {
	for (int i = 0; i < 3; i++)
		if (!serves(&beside[i], round))
			return false;
	return true;
}

// A client that nobody has accepted yet, and that has not said anything.
static int door, visitor;

static void make_pending(void) {
	door = listening("/run/door", SOCK_STREAM);
	visitor = MUST(connected("/run/door", SOCK_STREAM));
}

static bool check_pending(int round) {
	WANT(readable(door));
	int server = accept(door, NULL, NULL);
	WANT(server >= 0 && pass(visitor, server, text("visitor", round)) && pass(server, visitor, "welcome"));
	close(server);
	close(visitor);
	visitor = connected("/run/door", SOCK_STREAM);
	return visitor >= 0;
}

static int route;

static void make_netlink(void) {
	struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_pid = 4711, .nl_groups = RTMGRP_IPV4_IFADDR};
	route = MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
	MUST(bind(route, (void *)&a, sizeof a));
}

// Asks for the loopback interface, by number.
static bool check_netlink(int round) {
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} ask = {{.nlmsg_len = sizeof ask, .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = round + 1}, {.ifi_index = 1}};
	struct sockaddr_nl a;
	socklen_t n = sizeof a;
	char b[8192] __attribute__((aligned(8)));
	const struct nlmsghdr *h = (void *)b;
	WANT(getsockname(route, (void *)&a, &n) == 0 && a.nl_pid == 4711 && a.nl_groups == RTMGRP_IPV4_IFADDR);
	WANT(send(route, &ask, sizeof ask, 0) == sizeof ask);
	WANT(readable(route) && recv(route, b, sizeof b, 0) > (ssize_t)sizeof *h);
	WANT(h->nlmsg_type == RTM_NEWLINK && h->nlmsg_seq == (uint32_t)round + 1);
	return true;
}

const struct object sockets[] = {
	{"udp", make_udp, check_udp},
	{"unix-sockets", make_unix, check_unix},
	{"abstract-sockets", make_abstract, check_abstract},
	{"pending-client", make_pending, check_pending},
	{"netlink", make_netlink, check_netlink},
	{0},
};
