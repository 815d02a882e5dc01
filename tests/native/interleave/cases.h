/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cases.h - what is interleaved: how many threads of which kind, on what sort of machine. */
#ifndef INTERLEAVE_CASES_H
#define INTERLEAVE_CASES_H

#include "schedule.h"
#include "world.h"

#define STORES_MOST 6
#define PICKS_MOST (ACTORS_MOST * STORES_MOST)

/* What the owner of the dump does (owner.c). RING: nothing; the vCPUs take and give slots. */
enum owner { RING, WHOLE, RELEASES, NO_SWEEP, NO_RELEASE_OF_IO, STARTS, OVERTAKEN, NEXT, HELD };

struct test_case {
	const char *name;
	struct world_config world;
	uint32_t vcpus, stores, readers, callers, discards, releasers;
	enum owner owner;
	int bound; /* default */
};

/* NULL: there is no such case. Without a name: prints those of all. */
const struct test_case *find_case(const char *name);

extern const struct test_case *test; /* the one that runs */

#endif
