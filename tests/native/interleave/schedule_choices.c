/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule_choices.c - the choices of a run: all of them, depth first, or random ones. */
#include "schedule_parts.h"

#define NODES_MOST STEPS_MOST

struct node {
	uint8_t count, taken, free; /* options; the one taken; the first `free` ones cost nothing */
	int used;                   /* preemptions before it */
};

static const struct search *search;
static struct node nodes[NODES_MOST];
static int depth, prefix; /* nodes of this run; of those, given by the search */
static int used;
static bool pruned;
static uint64_t random_state;
static unsigned often; /* random: one choice in so many is not the first option */

void choices_begin(const struct search *s)
{
	search = s;
	prefix = 0;
	random_state = s->seed;
}

void choices_begin_run(uint64_t runs)
{
	depth = used = 0;
	pruned = false;
	/* Some runs change often, some hardly ever. */
	often = 1u << (1 + runs % 6);
}

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int choose_random(int options, int free)
{
	if (free > 1)
		return (int)(next_random() % (unsigned)options);
	return next_random() % often ? 0 : (int)(next_random() % (unsigned)options);
}

int choose(int options, int free)
{
	struct node *n = &nodes[depth];
	int taken;

	if (options < 2 || pruned || search->replay)
		return 0;
	if (search->seed)
		return choose_random(options, free);
	if (depth < prefix) {
		if (n->count != options || n->free != free)
			violated("a run does not repeat itself: the test is wrong");
	} else {
		if (depth == NODES_MOST || seen_before(schedule_state(), search->bound - used)) {
			pruned = true;
			return 0;
		}
		*n = (struct node){ .count = (uint8_t)options,
				    .free = (uint8_t)free,
				    .used = used };
	}
	taken = n->taken;
	used += taken >= free;
	depth++;
	return taken;
}

bool choices_next_run(void)
{
	for (prefix = depth; prefix > 0; prefix--) {
		struct node *n = &nodes[prefix - 1];

		if (n->taken + 1 < n->count &&
		    n->used + (n->taken + 1 >= n->free) <= search->bound) {
			n->taken++;
			return true;
		}
	}
	return false;
}
