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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "holds.h"
#include "owner.h"
#include "picks.h"
#include "users.h"

const struct test_case *test;

/* ---------------------------------------------------------------------- a run */

static void begin(void)
{
	world_begin(&test->world);
	world_dump_init();
	if (test->owner != STARTS && test->owner != OVERTAKEN && test->owner != HELD)
		world_dump_start();
	hold_begin();
	actor_make("owner", owner, NULL);
	users_make();
}

/* No store was lost. */
static void end(void)
{
	uint32_t expected[GRANULES_MOST] = { 0 };

	hold_end();
	world_end();
	if (test->owner == RING || test->discards)
		return;
	for (uint32_t i = 0; i < test->vcpus; i++)
		for (uint32_t n = 0; n < test->stores; n++)
			expected[pick(i, n)]++;
	for (uint32_t g = 0; g < test->world.granules; g++)
		world_check_stores(g, expected[g]);
}

static uint64_t state(void)
{
	uint64_t h = hold_state(users_state(world_state()));

	for (const char *p = picks; *p; p++)
		h = mix(h, (uint64_t)*p);
	return h;
}

/* ---------------------------------------------------------------------- main */

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
	if (!picks_begin(only))
		usage();
	do {
		struct found f = search_all(&s);

		sum.runs += f.runs;
		sum.states += f.states;
		sum.steps += f.steps;
		sum.complete &= f.complete;
	} while (!only && test->owner != RING && picks_next());
	printf("%s: %lu runs, %lu states, %lu steps%s\n", test->name, sum.runs, sum.states,
	       sum.steps, sum.complete ? ", complete" : "");
	return 0;
}
