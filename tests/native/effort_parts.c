/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * effort_parts.c - how many helpers are called, by what threads spent and how many granules became
 * final meanwhile. Prints what is wrong, then "right" when nothing was.
 *
 * Times at work are hours, so that it does not matter how late this program gets its processor.
 */
#include <stdio.h>
#include <stdlib.h>

#include "saving/within.h"

#define HOUR 3600000000000ull

static ldfs_dump *d;
static int wrong;

/*
 * A look after `done` more granules, and an hour of work, of it `cpu_percent` on a processor; in
 * the rest the thread slept or, if `queued`, waited for one.
 */
static void expect(const char *what, uint64_t done, uint64_t cpu_percent, bool queued,
		   uint32_t called)
{
	struct ldfs_spent spent;

	store_seq(&d->remaining, load_seq(&d->remaining) - done);
	store_seq(&d->effort.due_ns, 0);
	ldfs_effort_begin(d, &spent);
	spent.wall_ns -= HOUR;
	spent.cpu_ns -= HOUR / 100 * cpu_percent;
	spent.sleeps--; /* it has slept; so what is said here counts as waiting, and no more */
	if (queued)
		add_relaxed(&d->effort.queued_ns, HOUR / 100 * (100 - cpu_percent));
	ldfs_effort_end(d, &spent);
	if (ldfs_effort_called(d) == called)
		return;
	printf("%s: %u helpers called, not %u\n", what, ldfs_effort_called(d), called);
	wrong++;
}

/* A short piece of work that is all on a processor must not look like a wait for one. */
static void expect_exact_times(void)
{
	uint64_t none = 0;

	for (int i = 0; i < 200; i++) {
		struct ldfs_spent before, after;

		ldfs_effort_begin(d, &before);
		for (uint64_t end = ldfs_now_ns() + 100000; ldfs_now_ns() < end;)
			;
		ldfs_effort_begin(d, &after);
		none += after.cpu_ns == before.cpu_ns;
	}
	if (none) {
		printf("the processor time stood still in %lu of 200 pieces\n", none);
		wrong++;
	}
}

int main(void)
{
	d = aligned_alloc(CACHE_LINE, (sizeof(*d) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
	if (!d)
		return 2;
	*d = (ldfs_dump){ .remaining = UINT64_MAX / 2, .effort.helpers = 2 };
	expect("the first look, which knows nothing", 1000, 100, false, 0);
	expect("threads that wait for the target", 1000, 30, false, 0);
	expect("threads that are on a processor", 1000, 95, false, 1);
	expect("it gains much", 1000000000000, 95, false, 1);
	expect("another one", 1000, 95, false, 2);
	expect("it gains nothing", 0, 95, false, 1);
	expect("none is tried again soon", 1000, 95, false, 1);
	expect("threads that wait", 1000, 30, false, 0);
	d->effort.rest = 0;
	expect("processors that are not free", 1000, 80, true, 0);
	expect("one is", 1000, 95, false, 1);
	expect("it gains much, and takes it from the machine", 1000000000000, 67, true, 0);
	expect_exact_times();
	d->effort.helpers = 0;
	expect("no helper was made", 1000, 95, false, 0);
	if (!wrong)
		puts("right");
	free(d);
	return wrong != 0;
}
