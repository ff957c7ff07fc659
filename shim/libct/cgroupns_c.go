package libct

/*
#cgo CFLAGS: -Wall -Werror

#define _GNU_SOURCE
#include <sched.h>
#include <string.h>
#include <unistd.h>

// A process called by this name never becomes Go: it waits to be moved to a
// cgroup, makes a cgroup namespace rooted there, and stays until it has been
// looked at. Its standard input says when, its standard output that it is done.
#define HOLDER "snap-cgroupns"

// glibc hands main's arguments to constructors.
__attribute__((constructor)) static void hold_cgroupns(int argc, char **argv) {
	char c;

	if (argc != 1 || strcmp(argv[0], HOLDER) != 0)
		return;
	if (read(STDIN_FILENO, &c, 1) != 1)
		_exit(1);
	if (unshare(CLONE_NEWCGROUP) < 0)
		_exit(2);
	if (write(STDOUT_FILENO, &c, 1) != 1)
		_exit(3);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	_exit(0);
}
*/
import "C"
