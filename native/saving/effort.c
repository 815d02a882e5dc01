/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * effort.c - how many helpers save beside writer and sweep.
 *
 * More threads make a target faster that the processor bounds (a page cache, a tmpfs, the
 * checksum), and gain nothing with one that the device bounds. Which of the two a target is, and
 * whether a file system has a lock that only one of them passes, is measured while it is written:
 * one more helper is called when all that save are at work all the time, and on a processor for
 * most of that; it stays if granules then become final faster by a tenth. One is sent away when
 * there is not so much to do, or when the threads wait for the target. And when they wait for a
 * processor: then a helper takes it from the machine.
 */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <time.h>

#include "saving/within.h"

#define HELPERS_MOST 3u
#define LOOK_NS 20000000u /* between two looks */
#define REST 25           /* looks after a call that was in vain */
#define GAIN 1.1
#define BOUND 0.75 /* of the time at work on a processor: more can help */
#define IDLE 0.5   /* less: they wait for the target */
#define QUEUED 0.1 /* of the time at work waiting for a processor: none is to spare */

uint32_t ldfs_effort_helpers(void)
{
	uint32_t more = ldfs_thread_processors() - 1;

	return more < HELPERS_MOST ? more : HELPERS_MOST;
}

uint32_t ldfs_effort_called(const ldfs_dump *d)
{
	return load_relaxed(&d->effort.helpers) ? load_seq(&d->effort.called) : 0;
}

/* The clock is exact. The times of getrusage may move by a tick at once. */
static struct ldfs_spent spent_until_now(void)
{
	struct timespec cpu;
	struct rusage used;

	getrusage(RUSAGE_THREAD, &used);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	return (struct ldfs_spent){
		.wall_ns = ldfs_now_ns(),
		.cpu_ns = (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec,
		.sleeps = used.ru_nvcsw,
	};
}

void ldfs_effort_begin(const ldfs_dump *d, struct ldfs_spent *spent)
{
	if (load_relaxed(&d->effort.helpers))
		*spent = spent_until_now();
}

/* A thread that has not slept was on a processor or waited for one. */
static void add(struct ldfs_effort *e, const struct ldfs_spent *from, const struct ldfs_spent *to)
{
	uint64_t wall = to->wall_ns - from->wall_ns, cpu = to->cpu_ns - from->cpu_ns;

	add_relaxed(&e->busy_ns, wall);
	add_relaxed(&e->cpu_ns, cpu);
	if (to->sleeps == from->sleeps && wall > cpu)
		add_relaxed(&e->queued_ns, wall - cpu);
}

/* What was done since the look before. */
struct look {
	double busy;   /* threads at work, on average */
	double cpu;    /* of that on a processor, 0 to 1 */
	double queued; /* of that waiting for one */
	double rate;   /* granules a nanosecond that became final */
};

static struct look since_before(ldfs_dump *d, uint64_t now)
{
	struct ldfs_effort *e = &d->effort;
	uint64_t busy = load_relaxed(&e->busy_ns), cpu = load_relaxed(&e->cpu_ns);
	uint64_t queued = load_relaxed(&e->queued_ns);
	uint64_t left = load_seq(&d->remaining);
	double passed = (double)(now - e->at_ns);
	double worked = (double)(busy - e->busy_before_ns);
	struct look found = {
		.busy = worked / passed,
		.cpu = worked > 0 ? (double)(cpu - e->cpu_before_ns) / worked : 0,
		.queued = worked > 0 ? (double)(queued - e->queued_before_ns) / worked : 0,
		.rate = (double)(e->left_before - left) / passed,
	};

	e->at_ns = now;
	e->busy_before_ns = busy;
	e->cpu_before_ns = cpu;
	e->queued_before_ns = queued;
	e->left_before = left;
	return found;
}

/* Whether the last call, a look ago, was in vain. */
static bool in_vain(const struct ldfs_effort *e, const struct look *found)
{
	return found->rate < e->rate_before * GAIN || found->queued > QUEUED;
}

/* How many to call now. */
static uint32_t judge(struct ldfs_effort *e, const struct look *found)
{
	uint32_t called = load_relaxed(&e->called);

	if (e->trying) {
		e->trying = false;
		if (!in_vain(e, found))
			return called;
		e->rest = REST;
		return called - 1;
	}
	if (e->rest)
		e->rest--;
	if (called && (found->cpu < IDLE || found->queued > QUEUED || found->busy < called))
		return called - 1;
	if (e->rest || called == load_relaxed(&e->helpers) || found->cpu < BOUND ||
	    found->queued > QUEUED || found->busy < called + BOUND)
		return called;
	e->trying = true;
	e->rate_before = found->rate;
	return called + 1;
}

static void look(ldfs_dump *d, uint64_t now)
{
	struct ldfs_effort *e = &d->effort;
	bool first = !e->at_ns;
	struct look found = since_before(d, now);
	uint32_t before = load_relaxed(&e->called), called;

	if (first)
		return;
	called = judge(e, &found);
	store_seq(&e->called, called);
	if (called > load_relaxed(&e->most))
		store_relaxed(&e->most, called);
	if (called > before)
		ldfs_event_notify(&e->change);
}

void ldfs_effort_end(ldfs_dump *d, const struct ldfs_spent *spent)
{
	struct ldfs_effort *e = &d->effort;
	struct ldfs_spent now;

	if (!load_relaxed(&e->helpers))
		return;
	now = spent_until_now();
	add(e, spent, &now);
	if (now.wall_ns < load_relaxed(&e->due_ns) || exchange_seq(&e->looking, 1))
		return;
	if (now.wall_ns >= load_relaxed(&e->due_ns)) { /* another thread may just have looked */
		look(d, now.wall_ns);
		store_relaxed(&e->due_ns, now.wall_ns + LOOK_NS);
	}
	store_seq(&e->looking, 0);
}
