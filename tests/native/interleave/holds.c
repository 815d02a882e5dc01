/* SPDX-License-Identifier: GPL-2.0-or-later */
/* holds.c - see holds.h. */
#include <errno.h>

#include "holds.h"
#include "world_parts.h"

#define MOST_NS (SECOND / 2) /* over when the clock passes once */

static ldfs_hold *hold;
static bool unasked; /* the machine may have run before the word was won */

void hold_begin(void)
{
	unasked = false;
	if (test->owner == HELD && ldfs_hold_make(MOST_NS, &hold))
		violated("no memory for the hold");
}

void hold_end(void)
{
	ldfs_hold_free(hold);
	hold = NULL;
}

static uint64_t end_now(void)
{
	ldfs_hold_times times;

	ldfs_hold_look(hold, &times);
	return times.end;
}

/* When the time is over another program may let the machine run: the shim of a QEMU does. */
void hold_clock_passed(void)
{
	ldfs_hold_times times = { 0 };

	if (hold)
		ldfs_hold_look(hold, &times);
	if (times.stood_mono_ns && ldfs_now_ns() >= times.stood_mono_ns + MOST_NS &&
	    times.end == LDFS_HOLD_ON)
		unasked = true;
}

void hold_start(const ldfs_quiesce_ops *ops)
{
	int rc = ldfs_dump_start_held(world_dump, ops, SECOND, hold);

	ldfs_hold_over(hold);
	if (rc && rc != -EINVAL && rc != -ECANCELED)
		violated("HOLD: %d", rc);
	if (!rc && end_now() == LDFS_HOLD_FAILED)
		violated("armed, and the hold has no end");
}

void hold_lets_go(void)
{
	if (hold && end_now() == LDFS_HOLD_ON)
		unasked = true;
}

void *hold_client(void *arg)
{
	uint32_t found;

	(void)arg;
	if (ldfs_hold_await(hold, LDFS_HOLD_STANDS, UINT64_MAX) == LDFS_HOLD_STANDS) {
		ldfs_hold_arm(hold);
		ldfs_hold_await(hold, LDFS_HOLD_ARMED, UINT64_MAX);
	}
	found = ldfs_hold_go(hold);
	if (found == LDFS_HOLD_GO && unasked)
		violated("GO, and the machine may have run before");
	ldfs_hold_await(hold, LDFS_HOLD_OVER, UINT64_MAX);
	return NULL;
}

void hold_release(void)
{
	if (hold)
		ldfs_hold_release(hold);
}

uint64_t hold_state(uint64_t h)
{
	return mix(h, unasked);
}
