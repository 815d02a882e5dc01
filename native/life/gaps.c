/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * gaps.c - the gaps of a START that is taken in three steps: HOLD, ARM, GO.
 *
 * One thread, the holder, stops the machine, waits here for ARM, arms, waits here for GO, and lets
 * the machine go. So no other thread ever lets it go, and it is let go once. What the other threads
 * do is to ask. How the hold ends is one word, `end`, that only one of them wins, by
 * compare-and-swap: GO, RELEASE, or the holder itself when the time is over or a step has failed.
 * GO is what it says if it has won that word and the time was not over even then: until then the
 * machine stood.
 */
#include <errno.h>
#include <stdlib.h>

#include "life/life.h"

struct ldfs_hold {
	struct ldfs_event asked_for; /* `arm` and `end` changed; the holder waits */
	struct ldfs_event reached;   /* `stage` changed; those that ask wait */
	_Atomic uint32_t arm;        /* 1: ARM was asked for */
	_Atomic uint32_t end;        /* enum ldfs_hold_end */
	_Atomic uint32_t stage;      /* enum ldfs_hold_stage; written by the holder */
	uint64_t most_ns;
	/* CLOCK_MONOTONIC; written before the stage STANDS, as the times are before theirs. */
	uint64_t until_ns;
	ldfs_hold_times times;
};

int ldfs_hold_make(uint64_t most_ns, ldfs_hold **out)
{
	ldfs_hold *h = calloc(1, sizeof(*h));

	if (!h)
		return -ENOMEM;
	h->most_ns = most_ns;
	*out = h;
	return 0;
}

void ldfs_hold_free(ldfs_hold *h)
{
	free(h);
}

/* ---------------------------------------------------------------- the holder */

static void enter(ldfs_hold *h, uint32_t stage)
{
	store_seq(&h->stage, stage);
	ldfs_event_notify(&h->reached);
}

void ldfs_hold_stands(ldfs_hold *h)
{
	h->times.stood_mono_ns = ldfs_now_ns();
	h->times.stood_wall_ns = ldfs_wall_ns();
	h->until_ns = h->times.stood_mono_ns + h->most_ns;
	enter(h, LDFS_HOLD_STANDS);
}

void ldfs_hold_armed(ldfs_hold *h)
{
	enter(h, LDFS_HOLD_ARMED);
}

void ldfs_hold_runs(ldfs_hold *h)
{
	h->times.ran_mono_ns = ldfs_now_ns();
	h->times.ran_wall_ns = ldfs_wall_ns();
}

void ldfs_hold_over(ldfs_hold *h)
{
	uint32_t on = LDFS_HOLD_ON;

	cas_seq(&h->end, &on, LDFS_HOLD_FAILED);
	enter(h, LDFS_HOLD_OVER);
}

static bool in_time(const ldfs_hold *h)
{
	return ldfs_now_ns() < h->until_ns;
}

bool ldfs_hold_wait(ldfs_hold *h, uint32_t stage)
{
	for (;;) {
		uint32_t seen = ldfs_event_prepare(&h->asked_for), end = LDFS_HOLD_ON;
		bool over = load_seq(&h->end) != LDFS_HOLD_ON;

		if (!over && !in_time(h)) {
			cas_seq(&h->end, &end, LDFS_HOLD_EXPIRED);
			over = true;
		}
		if (over || (stage == LDFS_HOLD_STANDS && load_seq(&h->arm))) {
			ldfs_event_cancel(&h->asked_for);
			return !over;
		}
		ldfs_event_wait(&h->asked_for, seen, h->until_ns);
	}
}

/* ------------------------------------------------------------ those that ask */

void ldfs_hold_arm(ldfs_hold *h)
{
	store_seq(&h->arm, 1);
	ldfs_event_notify(&h->asked_for);
}

/*
 * The word is won first, then the clock is looked at. A process that was suspended between the two
 * finds the time over: another program may have let its machine run meanwhile.
 */
uint32_t ldfs_hold_go(ldfs_hold *h)
{
	uint32_t found = LDFS_HOLD_ON;

	if (cas_seq(&h->end, &found, LDFS_HOLD_GOING)) {
		found = in_time(h) ? LDFS_HOLD_GO : LDFS_HOLD_EXPIRED;
		store_seq(&h->end, found);
		ldfs_event_notify(&h->asked_for);
	}
	return found;
}

void ldfs_hold_release(ldfs_hold *h)
{
	uint32_t on = LDFS_HOLD_ON;

	cas_seq(&h->end, &on, LDFS_HOLD_RELEASED);
	ldfs_event_notify(&h->asked_for);
}

int ldfs_hold_await(ldfs_hold *h, uint32_t stage, uint64_t timeout_ns)
{
	uint64_t deadline_ns = ldfs_deadline(timeout_ns);
	uint32_t now;

	for (;;) {
		uint32_t seen = ldfs_event_prepare(&h->reached);

		now = load_seq(&h->stage);
		if (now >= stage || ldfs_now_ns() >= deadline_ns)
			break;
		ldfs_event_wait(&h->reached, seen, deadline_ns);
	}
	ldfs_event_cancel(&h->reached);
	return (int)now;
}

void ldfs_hold_look(const ldfs_hold *h, ldfs_hold_times *out)
{
	uint32_t stage = load_seq(&h->stage);

	*out = (ldfs_hold_times){ .end = load_seq(&h->end) };
	if (stage >= LDFS_HOLD_STANDS) {
		out->stood_mono_ns = h->times.stood_mono_ns;
		out->stood_wall_ns = h->times.stood_wall_ns;
	}
	if (stage == LDFS_HOLD_OVER) {
		out->ran_mono_ns = h->times.ran_mono_ns;
		out->ran_wall_ns = h->times.ran_wall_ns;
	}
}
