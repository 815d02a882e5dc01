/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * event.c - sleeping and waking that a signal handler may use: one futex word, no lock.
 *
 * A waiter increments `waiters`, reads `seq`, looks at its condition, and sleeps only while `seq`
 * is unchanged. A notifying thread makes the condition true first, then looks whether `waiters` is
 * 0. Both sides use sequentially consistent operations, so at least one of them sees what the other
 * wrote, and no wake-up is lost.
 *
 * Waits that last no longer than another thread's memcpy use a loop instead: ldfs_event_soon.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"
#include "base/relax.h"

#define SPINS_BEFORE_YIELD 200u
#define TURNS_BEFORE_SLEEP 300u
#define SOON_SLEEP_NS 50000

uint64_t ldfs_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t ldfs_deadline(uint64_t relative_ns)
{
	uint64_t now = ldfs_now_ns();

	return relative_ns > UINT64_MAX - now ? UINT64_MAX : now + relative_ns;
}

/*
 * The sleep is for callers that run under SCHED_FIFO (see urgent.c). sched_yield() of such a thread
 * does not give its processor to an ordinary thread, and the ordinary thread that it waits for may
 * be the one that it preempted. Only sleeping lets that thread run.
 */
void ldfs_event_soon(unsigned *turns)
{
	static const struct timespec briefly = { 0, SOON_SLEEP_NS };

	++*turns;
	if (*turns < SPINS_BEFORE_YIELD)
		relax();
	else if (*turns < TURNS_BEFORE_SLEEP)
		sched_yield();
	else
		syscall(SYS_nanosleep, &briefly, NULL);
}

uint32_t ldfs_event_prepare(struct ldfs_event *e)
{
	add_seq(&e->waiters, 1);
	return load_seq(&e->seq);
}

void ldfs_event_cancel(struct ldfs_event *e)
{
	sub_seq(&e->waiters, 1);
}

bool ldfs_event_wait_in(struct ldfs_event *e, uint32_t seen, uint64_t deadline_ns, uint32_t groups)
{
	struct timespec ts, *timeout = NULL;
	long rc;
	int error = 0;

	if (deadline_ns != UINT64_MAX) {
		ts.tv_sec = (time_t)(deadline_ns / 1000000000u);
		ts.tv_nsec = (long)(deadline_ns % 1000000000u);
		timeout = &ts;
	}
	/* FUTEX_WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC, FUTEX_WAIT a duration. */
	rc = syscall(SYS_futex, &e->seq, FUTEX_WAIT_BITSET_PRIVATE, seen, timeout, NULL, groups);
	if (rc < 0)
		error = errno;
	ldfs_event_cancel(e);
	return error != ETIMEDOUT;
}

bool ldfs_event_wait(struct ldfs_event *e, uint32_t seen, uint64_t deadline_ns)
{
	return ldfs_event_wait_in(e, seen, deadline_ns, FUTEX_BITSET_MATCH_ANY);
}

/*
 * A waiter that has not yet gone to sleep sees the other `seq`, and looks again, whatever the
 * number and its groups.
 */
static void wake(struct ldfs_event *e, int most, uint32_t groups)
{
	if (load_seq(&e->waiters) == 0)
		return;
	add_seq(&e->seq, 1);
	syscall(SYS_futex, &e->seq, FUTEX_WAKE_BITSET_PRIVATE, most, NULL, NULL, groups);
}

void ldfs_event_notify(struct ldfs_event *e)
{
	wake(e, INT_MAX, FUTEX_BITSET_MATCH_ANY);
}

void ldfs_event_notify_some(struct ldfs_event *e, uint32_t most)
{
	wake(e, most < INT_MAX ? (int)most : INT_MAX, FUTEX_BITSET_MATCH_ANY);
}

void ldfs_event_notify_one(struct ldfs_event *e)
{
	wake(e, 1, FUTEX_BITSET_MATCH_ANY);
}

void ldfs_event_notify_groups(struct ldfs_event *e, uint32_t groups)
{
	wake(e, INT_MAX, groups);
}
