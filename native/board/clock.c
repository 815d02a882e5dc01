/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * clock.c - the guest's clock is CLOCK_MONOTONIC; it goes on while the hart is held. A thread sets
 * WORK when the timer's time has come. A hart that waits in wfi sleeps until then by itself.
 */
#include "board/within.h"

#define TICK_NS (1000000000u / LDFS_BOARD_TIMEBASE)

uint64_t ldfs_clock_now(void)
{
	return ldfs_now_ns() / TICK_NS;
}

void ldfs_clock_set(struct ldfs_board *b, uint64_t tick)
{
	struct clock *c = &b->clock;

	c->due_ns = tick > UINT64_MAX / TICK_NS ? UINT64_MAX : tick * TICK_NS;
	ldfs_hart_pending(b, TIMER_PENDING, false);
	if (c->due_ns <= ldfs_now_ns()) {
		ldfs_clock_attend(b);
		return;
	}
	/* The thread that sleeps for an earlier time wakes for nothing, and then sleeps for this.
	 */
	if (exchange_seq(&c->wake_ns, c->due_ns) > c->due_ns)
		ldfs_event_notify(&c->changed);
}

void ldfs_clock_attend(struct ldfs_board *b)
{
	struct clock *c = &b->clock;

	if (c->due_ns > ldfs_now_ns())
		return;
	c->due_ns = UINT64_MAX;
	add_seq(&c->ticks, 1);
	ldfs_hart_pending(b, TIMER_PENDING, true);
}

static void *clock_main(void *arg)
{
	struct ldfs_board *b = arg;
	struct clock *c = &b->clock;

	while (!load_seq(&c->stop)) {
		uint32_t seen = ldfs_event_prepare(&c->changed);
		uint64_t wake = load_seq(&c->wake_ns);

		if (load_seq(&c->stop)) {
			ldfs_event_cancel(&c->changed);
			break;
		}
		if (wake > ldfs_now_ns()) {
			ldfs_event_wait(&c->changed, seen, wake);
			continue;
		}
		ldfs_event_cancel(&c->changed);
		/* If the hart has set another time meanwhile, that one stays. */
		cas_seq(&c->wake_ns, &wake, UINT64_MAX);
		ldfs_vcpu_set_work(b->hart);
	}
	return NULL;
}

int ldfs_clock_start(struct ldfs_board *b)
{
	int rc = ldfs_thread_start(&b->clock.thread, clock_main, b, "ldfs-clock");

	b->clock.has_thread = !rc;
	return rc;
}

void ldfs_clock_stop(struct ldfs_board *b)
{
	if (!b->clock.has_thread)
		return;
	store_seq(&b->clock.stop, 1);
	ldfs_event_notify(&b->clock.changed);
	pthread_join(b->clock.thread, NULL);
	b->clock.has_thread = false;
}
