/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_rules.c - what must hold at every step. */
#include <string.h>

#include "world_parts.h"

static uint32_t finals[GRANULES_MOST]; /* how often each became final */

void rules_begin(void)
{
	memset(finals, 0, sizeof(finals));
}

uint64_t rules_state(uint64_t h)
{
	for (uint32_t g = 0; g < world.granules; g++)
		h = mix(h, finals[g]);
	return h;
}

bool is_promised(void)
{
	uint32_t p = world_dump ? atomic_load(&world_dump->phase) : 0;

	return p == LDFS_PHASE_ARMED || p == LDFS_PHASE_SWEEPING || p == LDFS_PHASE_DRAINED;
}

static uint8_t state_of(uint32_t g)
{
	return atomic_load(&world_dump->state[g]);
}

static bool in_its_slot(uint32_t g)
{
	uint32_t slot = atomic_load(&world_dump->slot_of[g]);

	return !memcmp(ldfs_slot_bytes(&world_dump->ring, slot), memory_instant(g), PAGE);
}

static bool on_target(uint32_t g)
{
	return target_has(g, memory_instant(g));
}

static bool was_zero(uint32_t g)
{
	static const uint8_t zeros[PAGE];

	return !memcmp(memory_instant(g), zeros, PAGE);
}

bool is_safe(uint32_t g)
{
	switch (state_of(g)) {
	case LDFS_G_LOST:
		return true;
	case LDFS_G_IN_SLOT:
	case LDFS_G_STOLEN:
		return in_its_slot(g);
	case LDFS_G_SAVED:
		return on_target(g);
	case LDFS_G_HOLE:
		return was_zero(g);
	}
	return false;
}

bool world_may_lose(void)
{
	if (world.no_target && world.grows && !world.holds)
		return true;
	return (world.fail && world.slots < world.granules) || io_has_failed() || world.stolen ||
	       (world_dump && !world.guarded && atomic_load(&world_dump->gave_up));
}

static bool step_exists(uint8_t from, uint8_t to)
{
	static const uint16_t next[] = {
		[LDFS_G_ARMED] = 1 << LDFS_G_CLAIMED | 1 << LDFS_G_SWEEPING | 1 << LDFS_G_LOST,
		[LDFS_G_CLAIMED] = 1 << LDFS_G_IN_SLOT | 1 << LDFS_G_LOST,
		[LDFS_G_IN_SLOT] = 1 << LDFS_G_SAVED | 1 << LDFS_G_LOST,
		[LDFS_G_SWEEPING] = 1 << LDFS_G_STEALING | 1 << LDFS_G_SAVED | 1 << LDFS_G_HOLE |
				    1 << LDFS_G_LOST,
		[LDFS_G_STEALING] = 1 << LDFS_G_STOLEN | 1 << LDFS_G_CLAIMED | 1 << LDFS_G_LOST,
		[LDFS_G_STOLEN] = 1 << LDFS_G_IN_SLOT,
	};

	return from < LDFS_G_SAVED && next[from] & 1 << to;
}

static uint64_t instant_checksum(uint32_t g)
{
	return ldfs_checksum(memory_instant(g), PAGE);
}

/* What a state says of the granule's bytes. */
static void check_promise(uint32_t g, uint8_t state)
{
	if ((state == LDFS_G_IN_SLOT || state == LDFS_G_STOLEN) && !is_safe(g))
		violated("granule %u: published, but its slot has other bytes than the instant", g);
	if (state == LDFS_G_SAVED && !on_target(g))
		violated("granule %u: saved, but the target has other bytes than the instant", g);
	if (state == LDFS_G_SAVED && world_dump->checksum[g] != instant_checksum(g))
		violated("granule %u: saved, but the checksum is of other bytes", g);
	if (state == LDFS_G_HOLE && !was_zero(g))
		violated("granule %u: called a hole, but it had data", g);
}

void check_state_step(uint32_t g, uint8_t from, uint8_t to)
{
	if (!step_exists(from, to))
		violated("granule %u: no step leads from %u to %u", g, from, to);
	if (to >= LDFS_G_SAVED && finals[g]++)
		violated("granule %u: in a final state twice", g);
	if (to == LDFS_G_LOST && !world_may_lose())
		violated("granule %u: lost without a cause", g);
	if (is_promised())
		check_promise(g, to);
}

void check_phase_step(uint32_t from, uint32_t to)
{
	if (to != LDFS_PHASE_DRAINED)
		return;
	if (from == LDFS_PHASE_RELEASED)
		violated("sealed after RELEASE");
	for (uint32_t g = 0; g < world.granules; g++) {
		if (state_of(g) < LDFS_G_SAVED)
			violated("granule %u: state %u in a dump that is drained", g, state_of(g));
		if (!is_safe(g))
			violated("granule %u: other bytes than the instant at the drain", g);
		if (is_readonly(g))
			violated("granule %u: still read-only at the drain", g);
	}
	if (!target_is_synced())
		violated("sealed, but data written since the last sync");
}

/* Marks on the target must be right whenever they are written. */
void check_marks(const ldfs_table_block *block)
{
	for (uint32_t g = 0; g < block->count; g++) {
		const ldfs_table_entry *e = &block->entries[g];

		if (e->state == LDFS_G_SAVED && !on_target(g))
			violated("granule %u: marked as saved, with other bytes on the target", g);
		if (e->state == LDFS_G_SAVED && e->checksum != instant_checksum(g))
			violated("granule %u: marked with a checksum of other bytes", g);
		if (e->state == LDFS_G_HOLE && !was_zero(g))
			violated("granule %u: marked as a hole, but it had data", g);
	}
}

void world_check_read(uint32_t g, const uint8_t *got)
{
	if (memcmp(got, memory_instant(g), PAGE))
		violated("granule %u: a reader got other bytes than the instant", g);
}
