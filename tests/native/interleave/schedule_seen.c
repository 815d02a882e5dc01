/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule_seen.c - the states that were met, by their hashes. */
#include "schedule_parts.h"

#define BITS 22
#define TRIES 16

static struct {
	uint64_t state;
	int left;
} seen[1u << BITS];
static uint64_t states;

uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 29;
}

bool seen_before(uint64_t state, int left)
{
	for (unsigned i = 0; i < TRIES; i++) {
		uint64_t at = (state + i) & ((1u << BITS) - 1);

		if (seen[at].state == state) {
			if (seen[at].left >= left)
				return true;
			seen[at].left = left;
			return false;
		}
		if (!seen[at].state || i == TRIES - 1) {
			states += !seen[at].state;
			seen[at].state = state;
			seen[at].left = left;
			return false;
		}
	}
	return false;
}

uint64_t seen_states(void)
{
	return states;
}
