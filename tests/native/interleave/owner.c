/* SPDX-License-Identifier: GPL-2.0-or-later */
/* owner.c - see owner.h. */
#include <errno.h>

#include "holds.h"
#include "owner.h"
#include "users.h"

#define SECOND 1000000000ull

static int quiesce(void *ctx, uint64_t deadline_ns)
{
	(void)ctx, (void)deadline_ns;
	world_stop = true;
	actor_wrote();
	while (world_in_store && !test->world.unstopped)
		turn_spin();
	return 0;
}

static void resume(void *ctx)
{
	(void)ctx;
	hold_lets_go();
	world_stop = false;
	actor_wrote();
}

static void start(int expect)
{
	ldfs_quiesce_ops ops = { .quiesce = quiesce, .resume = resume };
	int rc = ldfs_dump_start(world_dump, &ops, SECOND);

	if (rc != expect)
		violated("START: %d instead of %d", rc, expect);
}

/* RELEASE came first, in the middle, or after it. */
static void start_overtaken(void)
{
	ldfs_quiesce_ops ops = { .quiesce = quiesce, .resume = resume };
	int rc = ldfs_dump_start(world_dump, &ops, SECOND);

	if (rc && rc != -EINVAL && rc != -ECANCELED)
		violated("START: %d beside RELEASE", rc);
}

static void start_held(void)
{
	ldfs_quiesce_ops ops = { .quiesce = quiesce, .resume = resume };

	hold_start(&ops);
}

static void sweep_and_wait(void)
{
	ldfs_counters counters;
	uint64_t sum;
	int rc = ldfs_dump_sweep(world_dump);

	if (!rc)
		rc = ldfs_dump_wait(world_dump, UINT64_MAX);
	if (rc)
		violated("SWEEP: %d", rc);
	ldfs_dump_counters(world_dump, &counters);
	sum = counters.by_fault + counters.by_sweep + counters.holes + counters.lost;
	if (counters.remaining || sum != test->world.granules)
		violated("%lu by fault, %lu by sweep, %lu holes, %lu lost, %lu remain",
			 counters.by_fault, counters.by_sweep, counters.holes, counters.lost,
			 counters.remaining);
	/* Else the slots would be blamed. */
	if (test->world.stolen && counters.lost && !counters.failure.error)
		violated("%lu lost, and the dump does not say why", counters.lost);
}

static void release_and_free(void)
{
	int rc = ldfs_dump_release(world_dump);

	if (rc && rc != -EINPROGRESS)
		violated("RELEASE: %d", rc);
	if (rc)
		io_comes_back();
	while (ldfs_dump_free(world_dump))
		turn_spin();
}

/* The last one is given back after its granule's state. */
static void slots_come_back(void)
{
	while (atomic_load(&world_dump->ring.in_use))
		turn_spin();
}

void *owner(void *arg)
{
	(void)arg;
	switch (test->owner) {
	case STARTS:
		if (test->world.start_fails)
			start(-ENOMEM);
		start(0);
		break;
	case OVERTAKEN:
		start_overtaken();
		break;
	case HELD:
		start_held();
		break;
	case RELEASES: /* also in the middle of it all */
		if (turn_choose(2, "without SWEEP") == 0)
			ldfs_dump_sweep(world_dump);
		break;
	case NEXT:
		release_and_free();
		world_dump_init();
		start(0);
		break;
	case NO_RELEASE_OF_IO:
		ldfs_dump_sweep(world_dump);
		break;
	default:
		break;
	}
	if (test->owner == WHOLE || test->owner == STARTS || test->owner == NEXT)
		sweep_and_wait();
	/* A reader must not come after the dump is freed; a store may. */
	if (test->owner != RELEASES || test->readers) {
		if (test->owner == RELEASES)
			ldfs_dump_release(world_dump);
		users_wait();
	}
	if (test->owner == WHOLE && ldfs_dump_phase(world_dump) == LDFS_PHASE_DRAINED)
		slots_come_back();
	release_and_free();
	return NULL;
}
