// Timers of all kinds.
#include "check.h"
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

enum { HOUR = 3600, TICK = 50 * 1000 * 1000 };

// Whether seconds are left of an hour: not more than it had, and no other timer's.
static bool of_an_hour(time_t left) { return left > HOUR / 2 && left <= HOUR; }

static int relative, absolute, ticking;
static time_t due;

static void make_timerfd(void) {
	struct itimerspec t = {.it_value.tv_sec = HOUR};
	relative = MUST(timerfd_create(CLOCK_MONOTONIC, 0));
	MUST(timerfd_settime(relative, 0, &t, NULL));
	due = time(NULL) + HOUR;
	t.it_value.tv_sec = due;
	absolute = MUST(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
	MUST(timerfd_settime(absolute, TFD_TIMER_ABSTIME, &t, NULL));
	t = (struct itimerspec){.it_value.tv_nsec = TICK, .it_interval.tv_nsec = TICK};
	ticking = MUST(timerfd_create(CLOCK_BOOTTIME, 0));
	MUST(timerfd_settime(ticking, 0, &t, NULL));
}

static bool check_timerfd(int round) {
	struct itimerspec t;
	uint64_t ticks;
	(void)round;
	WANT(timerfd_gettime(relative, &t) == 0 && of_an_hour(t.it_value.tv_sec) && t.it_interval.tv_sec == 0);
	// This one ends at an hour of the day, however long the program was away. Each
	// capture and each restore takes a moment, which is long on a busy machine.
	WANT(timerfd_gettime(absolute, &t) == 0 && labs(t.it_value.tv_sec - (due - time(NULL))) <= 30);
	WANT(timerfd_gettime(ticking, &t) == 0 && t.it_interval.tv_nsec == TICK);
	for (int i = 0; i < 2; i++)
		WANT(readable(ticking) && read(ticking, &ticks, sizeof ticks) == sizeof ticks && ticks > 0);
	return true;
}

static timer_t alarm_clock, metronome;

static void make_posix(void) {
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2, .sigev_value.sival_int = 77};
	struct itimerspec t = {.it_value.tv_nsec = TICK, .it_interval.tv_nsec = TICK};
	sigset_t set;
	timer_t gap;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 2);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	MUST(timer_create(CLOCK_MONOTONIC, NULL, &gap)); // the others' numbers do not begin at 0
	MUST(timer_create(CLOCK_MONOTONIC, &e, &metronome));
	MUST(timer_settime(metronome, 0, &t, NULL));
	e = (struct sigevent){.sigev_notify = SIGEV_NONE};
	t = (struct itimerspec){.it_value.tv_sec = HOUR};
	MUST(timer_create(CLOCK_REALTIME, &e, &alarm_clock));
	MUST(timer_settime(alarm_clock, 0, &t, NULL));
	MUST(timer_delete(gap));
}

static bool check_posix(int round) {
	struct itimerspec t;
	struct timespec patience = {.tv_sec = 20};
	sigset_t set;
	siginfo_t info;
	(void)round;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 2);
	for (int i = 0; i < 2; i++)
		WANT(sigtimedwait(&set, &info, &patience) == SIGRTMIN + 2 && info.si_code == SI_TIMER && info.si_int == 77);
	WANT(timer_gettime(metronome, &t) == 0 && t.it_interval.tv_nsec == TICK);
	WANT(timer_gettime(alarm_clock, &t) == 0 && of_an_hour(t.it_value.tv_sec));
	return true;
}

static void make_interval(void) {
	struct itimerval t = {.it_value.tv_sec = HOUR, .it_interval.tv_usec = 3000};
	MUST(setitimer(ITIMER_REAL, &t, NULL));
	MUST(setitimer(ITIMER_VIRTUAL, &t, NULL));
	MUST(setitimer(ITIMER_PROF, &t, NULL));
}

static bool check_interval(int round) {
	(void)round;
	for (int which = ITIMER_REAL; which <= ITIMER_PROF; which++) {
		struct itimerval t;
		WANT(getitimer(which, &t) == 0 && of_an_hour(t.it_value.tv_sec) && t.it_interval.tv_usec >= 3000 && t.it_interval.tv_usec <= 4000);
	}
	return true;
}

const struct object timers[] = {
	{"timerfd", make_timerfd, check_timerfd},
	{"posix-timers", make_posix, check_posix},
	{"interval-timers", make_interval, check_interval},
	{0},
};
