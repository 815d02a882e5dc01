/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * interleave.c - the core's own code, one step at a time, in all orders of its threads.
 *
 *     interleave CASE [-b BOUND] [-r RUNS] [-s SEED] [-p PICKS] [-R SCHEDULE]
 *     interleave               lists the cases
 *
 * BOUND: preemptions at the most, or "all". RUNS: at the most, for each of the picks. SEED: random
 * schedules instead of all. PICKS: which granules the vCPUs store to, one digit a store; else all
 * that are different. SCHEDULE: one run, as a violation printed it. Prints runs, states and steps;
 * 1 and the run when something that must hold does not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schedule.h"
#include "world.h"

#define STORES_MOST 6
#define SECOND 1000000000ull

enum owner { RING, WHOLE, RELEASES, NO_SWEEP, NO_RELEASE_OF_IO, STARTS, OVERTAKEN, NEXT };

struct test_case {
	const char *name;
	struct world_config world;
	uint32_t vcpus, stores, readers, callers, discards;
	enum owner owner;
	int bound; /* default */
};

static const struct test_case cases[] = {
	{ "ring",
	  { .granules = 3, .slots = 3, .no_target = true },
	  .vcpus = 3,
	  .stores = 1,
	  .owner = RING,
	  .bound = 2 },
	{ "two_by_two",
	  { .granules = 2, .slots = 2 },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 2 },
	{ "guarded",
	  { .granules = 2, .slots = 2, .guarded = true },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 1 },
	{ "three_by_one",
	  { .granules = 3, .slots = 1 },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 1 },
	{ "reader",
	  { .granules = 2, .slots = 1, .hole = 1 },
	  .vcpus = 1,
	  .stores = 2,
	  .readers = 1,
	  .owner = WHOLE,
	  .bound = 1 },
	{ "readers_two",
	  { .granules = 2, .slots = 2 },
	  .vcpus = 2,
	  .stores = 1,
	  .readers = 1,
	  .owner = WHOLE,
	  .bound = 1 },
	{ "fail",
	  { .granules = 2, .slots = 1, .fail = true, .errors = 1 },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 2 },
	{ "errors",
	  { .granules = 2, .slots = 1, .errors = 1, .deadlines = 1 },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 2 },
	{ "copy_fails",
	  { .granules = 2, .slots = 1, .hole = 1, .errors = 2 },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 2 },
	{ "hang",
	  { .granules = 2, .slots = 1, .hangs = true, .waits_end = true },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = NO_RELEASE_OF_IO,
	  .bound = 2 },
	{ "slots",
	  { .granules = 3, .slots = 1 },
	  .vcpus = 3,
	  .stores = 1,
	  .owner = NO_SWEEP,
	  .bound = 2 },
	{ "same_granule",
	  { .granules = 1, .slots = 1, .hangs = true },
	  .vcpus = 3,
	  .stores = 1,
	  .owner = NO_RELEASE_OF_IO,
	  .bound = 2 },
	{ "each",
	  { .granules = 1, .slots = 1, .fail = true },
	  .vcpus = 3,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 2 },
	{ "spill",
	  { .granules = 4, .slots = 1, .spill = 3, .no_target = true },
	  .vcpus = 3,
	  .stores = 1,
	  .owner = NO_SWEEP,
	  .bound = 4 },
	{ "around",
	  { .granules = 3, .slots = 3 },
	  .vcpus = 3,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 1 },
	{ "widen",
	  { .granules = 3, .slots = 3, .mappings = 1 },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = NO_SWEEP,
	  .bound = 2 },
	{ "widen_sweep",
	  { .granules = 3, .slots = 2, .mappings = 2 },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 1 },
	{ "islands",
	  { .granules = 4, .slots = 4, .islands = 1 },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 1 },
	{ "release",
	  { .granules = 2, .slots = 1, .table = true },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = RELEASES,
	  .bound = 2 },
	{ "release_reader",
	  { .granules = 2, .slots = 1 },
	  .vcpus = 1,
	  .stores = 2,
	  .readers = 1,
	  .owner = RELEASES,
	  .bound = 1 },
	{ "stolen",
	  { .granules = 2, .slots = 1, .stolen = true },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = WHOLE,
	  .bound = 1 },
	{ "stolen_slots",
	  { .granules = 2, .slots = 1, .hangs = true, .stolen = true },
	  .vcpus = 2,
	  .stores = 1,
	  .owner = NO_RELEASE_OF_IO,
	  .bound = 2 },
	{ "stolen_release",
	  { .granules = 2, .slots = 1, .stolen = true },
	  .vcpus = 1,
	  .stores = 2,
	  .readers = 1,
	  .owner = RELEASES,
	  .bound = 1 },
	{ "start",
	  { .granules = 2, .slots = 2, .start_fails = true },
	  .vcpus = 1,
	  .stores = 2,
	  .callers = 1,
	  .owner = STARTS,
	  .bound = 1 },
	{ "overtaken",
	  { .granules = 2, .slots = 2, .unstopped = true },
	  .vcpus = 1,
	  .stores = 1,
	  .owner = OVERTAKEN,
	  .bound = 2 },
	{ "discard",
	  { .granules = 2, .slots = 2 },
	  .vcpus = 1,
	  .stores = 1,
	  .discards = 1,
	  .owner = STARTS,
	  .bound = 1 },
	{ "next_dump",
	  { .granules = 2, .slots = 1 },
	  .vcpus = 1,
	  .stores = 1,
	  .callers = 1,
	  .owner = NEXT,
	  .bound = 1 },
};

static const struct test_case *test;
static char picks[ACTORS_MOST * STORES_MOST + 1];
static uint32_t users_ended, users;
static bool slot_held[GRANULES_MOST];
static uint32_t expected[GRANULES_MOST]; /* stores */

/* -------------------------------------------------------------------- actors */

static void user_ended(void)
{
	users_ended++;
	actor_wrote();
}

static void *vcpu(void *arg)
{
	uintptr_t i = (uintptr_t)arg;

	for (uint32_t n = 0; n < test->stores; n++) {
		world_store((uint32_t)(picks[i * test->stores + n] - '0'), (unsigned)(i + n) % 2);
		actor_forgets(n + 1);
	}
	user_ended();
	return NULL;
}

static void *reader(void *arg)
{
	uint8_t got[LDFS_PAGE_SIZE];
	int rc;

	(void)arg;
	for (uint32_t g = 0; g < test->world.granules; g++) {
		rc = ldfs_dump_read(world_dump, (uint64_t)g * LDFS_PAGE_SIZE, got, sizeof(got));
		if (rc == 0)
			world_check_read(g, got);
		else if (rc == -ENODATA ? test->owner != RELEASES : rc != -EIO || !world_may_lose())
			violated("granule %u: a reader got %d", g, rc);
		actor_forgets(g + 1);
	}
	user_ended();
	return NULL;
}

/* Takes, holds and gives back slots as two handlers one after the other would. */
static void *slot_user(void *arg)
{
	struct ldfs_ring *r = &world_dump->ring;
	uint32_t slots[2];

	(void)arg;
	for (int i = 0; i < 2; i++) {
		slots[i] = ldfs_ring_take(r);
		if (slots[i] == NO_SLOT)
			continue;
		if (slot_held[slots[i]])
			violated("slot %u is taken twice", slots[i]);
		slot_held[slots[i]] = true;
	}
	for (int i = 0; i < 2; i++) {
		if (slots[i] == NO_SLOT)
			continue;
		slot_held[slots[i]] = false;
		ldfs_ring_give(r, slots[i]);
	}
	user_ended();
	return NULL;
}

/* A thread that quiesce does not stop. */
static void *caller(void *arg)
{
	(void)arg;
	ldfs_arena_writable(world_arena, 0, LDFS_PAGE_SIZE);
	user_ended();
	return NULL;
}

static void *discarder(void *arg)
{
	(void)arg;
	ldfs_arena_discard(world_arena, 0, LDFS_PAGE_SIZE);
	user_ended();
	return NULL;
}

/* Beside a START that is at work. */
static void *releaser(void *arg)
{
	(void)arg;
	ldfs_dump_release(world_dump);
	user_ended();
	return NULL;
}

/* --------------------------------------------------------------------- owner */

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

static void sweep_and_wait(void)
{
	ldfs_counters counters;
	int rc = ldfs_dump_sweep(world_dump);

	if (!rc)
		rc = ldfs_dump_wait(world_dump, UINT64_MAX);
	if (rc)
		violated("SWEEP: %d", rc);
	ldfs_dump_counters(world_dump, &counters);
	if (counters.remaining ||
	    counters.by_fault + counters.by_sweep + counters.holes + counters.lost !=
		    test->world.granules)
		violated("%lu by fault, %lu by sweep, %lu holes, %lu lost, %lu remain",
			 counters.by_fault, counters.by_sweep, counters.holes, counters.lost,
			 counters.remaining);
	/* Else the slots would be blamed. */
	if (test->world.stolen && counters.lost && !counters.failure.error)
		violated("%lu lost, and the dump does not say why", counters.lost);
}

static void users_end(void)
{
	while (users_ended < users)
		turn_spin();
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

static void *owner(void *arg)
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
		users_end();
	}
	if (test->owner == WHOLE && ldfs_dump_phase(world_dump) == LDFS_PHASE_DRAINED)
		while (atomic_load(
			&world_dump->ring.in_use)) /* the last is given back after its state */
			turn_spin();
	release_and_free();
	return NULL;
}

/* ---------------------------------------------------------------- begin, end */

static void begin(void)
{
	world_begin(&test->world);
	users_ended = 0;
	users = test->vcpus + test->readers + test->callers + test->discards +
		(test->owner == OVERTAKEN);
	memset(expected, 0, sizeof(expected));
	memset(slot_held, 0, sizeof(slot_held));
	world_dump_init();
	if (test->owner != STARTS && test->owner != OVERTAKEN)
		world_dump_start();
	actor_make("owner", owner, NULL);
	if (test->owner == OVERTAKEN)
		actor_make("releaser", releaser, NULL);
	for (uint32_t i = 0; i < test->vcpus; i++)
		actor_make((const char *[]){ "vcpu0", "vcpu1", "vcpu2" }[i],
			   test->owner == RING ? slot_user : vcpu, (void *)(uintptr_t)i);
	for (uint32_t i = 0; i < test->readers; i++)
		actor_make("reader", reader, NULL);
	for (uint32_t i = 0; i < test->callers; i++)
		actor_make("caller", caller, NULL);
	for (uint32_t i = 0; i < test->discards; i++)
		actor_make("discarder", discarder, NULL);
}

/* No store was lost. */
static void end(void)
{
	world_end();
	if (test->owner == RING || test->discards)
		return;
	for (uint32_t i = 0; i < test->vcpus * test->stores; i++)
		expected[picks[i] - '0']++;
	for (uint32_t g = 0; g < test->world.granules; g++)
		world_check_stores(g, expected[g]);
}

static uint64_t state(void)
{
	uint64_t h = mix(world_state(), users_ended);

	for (uint32_t i = 0; i < GRANULES_MOST; i++)
		h = mix(h, slot_held[i]);
	for (const char *p = picks; *p; p++)
		h = mix(h, (uint64_t)*p);
	return h;
}

/* --------------------------------------------------------------------- picks */

/* The next list of granules; vCPUs that store once are alike, so theirs never fall. False: was the
 * last. */
static bool next_picks(void)
{
	uint32_t all = test->vcpus * test->stores;
	char most = (char)('0' + test->world.granules - 1);

	for (uint32_t i = all; i-- > 0;) {
		if (picks[i] == most)
			continue;
		picks[i]++;
		memset(picks + i + 1, test->stores == 1 ? picks[i] : '0', all - i - 1);
		return true;
	}
	return false;
}

/* ---------------------------------------------------------------------- main */

static const struct test_case *find_case(const char *name)
{
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		if (!name)
			puts(cases[i].name);
		else if (!strcmp(cases[i].name, name))
			return &cases[i];
	}
	return NULL;
}

static void usage(void)
{
	fprintf(stderr,
		"usage: interleave CASE [-b BOUND] [-r RUNS] [-s SEED] [-p PICKS] [-R SCHEDULE]\n");
	exit(2);
}

static void read_options(int argc, char **argv, struct search *s, const char **only)
{
	for (int i = 2; i < argc; i += 2) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!*value || argv[i][0] != '-')
			usage();
		switch (argv[i][1]) {
		case 'b':
			s->bound = strcmp(value, "all") ? atoi(value) : UNBOUNDED;
			break;
		case 'r':
			s->runs_most = strtoull(value, NULL, 0);
			break;
		case 's':
			s->seed = strtoull(value, NULL, 0);
			break;
		case 'p':
			*only = value;
			break;
		case 'R':
			s->replay = value;
			break;
		default:
			usage();
		}
	}
}

int main(int argc, char **argv)
{
	struct search s = { .state = state, .begin = begin, .end = end, .about = picks };
	struct found sum = { .complete = true };
	const char *only = NULL;

	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	test = find_case(argc > 1 ? argv[1] : NULL);
	if (!test)
		return argc > 1 ? 2 : 0;
	s.bound = test->bound;
	read_options(argc, argv, &s, &only);
	memset(picks, '0', test->vcpus * test->stores);
	if (only && strlen(only) != test->vcpus * test->stores)
		usage();
	if (only)
		memcpy(picks, only, strlen(only));
	do {
		struct found f = search_all(&s);

		sum.runs += f.runs;
		sum.states += f.states;
		sum.steps += f.steps;
		sum.complete &= f.complete;
	} while (!only && test->owner != RING && next_picks());
	printf("%s: %lu runs, %lu states, %lu steps%s\n", test->name, sum.runs, sum.states,
	       sum.steps, sum.complete ? ", complete" : "");
	return 0;
}
