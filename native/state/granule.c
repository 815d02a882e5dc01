/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * granule.c - the state byte of a granule and every step between its states.
 *
 * Nothing else writes a state after INIT. A step that may find another state than its predecessor
 * leaves it and says so. docs/concurrency.md has the diagram; tests/model/ the same names.
 * Everything here is [signal].
 */
#include "state/state.h"

static bool step(ldfs_dump *d, uint32_t g, uint8_t from, uint8_t to)
{
	return cas_seq(&d->state[g], &from, to);
}

/* What every step into a final state does beside: for the table, the drain and all that wait. */
static void became_final(ldfs_dump *d, uint32_t g)
{
	/* Its block of the table (saving/table.c) is written anew. */
	store_seq(&d->table.dirty[g / LDFS_TABLE_BLOCK_ENTRIES], 1);
	if (sub_seq(&d->remaining, 1) == 1)
		ldfs_event_notify(&d->progress);
}

static bool lose_from(ldfs_dump *d, uint32_t g, uint8_t from)
{
	if (!step(d, g, from, LDFS_G_LOST))
		return false;
	add_relaxed(&d->lost, 1);
	became_final(d, g);
	return true;
}

/* ARMED -> CLAIMED: the caller, which holds a slot, copies. */
bool ldfs_step_claim(ldfs_dump *d, uint32_t g)
{
	return step(d, g, LDFS_G_ARMED, LDFS_G_CLAIMED);
}

/* SWEEPING -> STEALING: as claim, while the sweep's I/O goes on in vain. */
bool ldfs_step_steal(ldfs_dump *d, uint32_t g)
{
	if (!step(d, g, LDFS_G_SWEEPING, LDFS_G_STEALING))
		return false;
	add_relaxed(&d->steals, 1);
	return true;
}

/*
 * CLAIMED -> IN_SLOT, or STEALING -> STOLEN while the sweep's I/O is still under way. The bytes are
 * in `slot` already. After a steal the I/O may end at any time, which turns STEALING into CLAIMED.
 */
void ldfs_step_publish(ldfs_dump *d, uint32_t g, uint32_t slot, bool stolen)
{
	store_release(&d->slot_of[g], slot);
	d->how[g] = stolen ? LDFS_BY_STEAL : LDFS_BY_FAULT;
	if (stolen && step(d, g, LDFS_G_STEALING, LDFS_G_STOLEN))
		return;
	step(d, g, LDFS_G_CLAIMED, LDFS_G_IN_SLOT);
}

/* ARMED -> SWEEPING: the sweep will read it from memory. */
bool ldfs_step_sweep(ldfs_dump *d, uint32_t g)
{
	return step(d, g, LDFS_G_ARMED, LDFS_G_SWEEPING);
}

/*
 * The sweep's I/O on g has ended with `result` (SAVED, HOLE or LOST). Unstolen: that is the final
 * state. Stolen: the slot's owner goes on, and neither result nor checksum counts. Returns the
 * state that the granule has now.
 */
uint8_t ldfs_step_sweep_over(ldfs_dump *d, uint32_t g, uint8_t result, uint64_t checksum)
{
	if (result == LDFS_G_LOST && lose_from(d, g, LDFS_G_SWEEPING))
		return LDFS_G_LOST;
	if (result != LDFS_G_LOST) {
		/* checksum[g] is the sweep's alone until the state is final: the writer of a stolen
		 * granule's slot writes it only after the steps below. */
		d->checksum[g] = checksum;
		if (step(d, g, LDFS_G_SWEEPING, result)) {
			add_relaxed(result == LDFS_G_HOLE ? &d->holes
							  : &d->final_count[LDFS_BY_SWEEP - 1],
				    1);
			became_final(d, g);
			return result;
		}
	}
	for (;;) {
		if (step(d, g, LDFS_G_STEALING, LDFS_G_CLAIMED))
			return LDFS_G_CLAIMED;
		if (step(d, g, LDFS_G_STOLEN, LDFS_G_IN_SLOT))
			return LDFS_G_IN_SLOT;
		if (ldfs_state(d, g) == LDFS_G_LOST)
			return LDFS_G_LOST;
	}
}

/* IN_SLOT -> SAVED: the slot is on the target. The caller frees the slot after this. */
bool ldfs_step_saved(ldfs_dump *d, uint32_t g, uint64_t checksum)
{
	d->checksum[g] = checksum;
	if (!step(d, g, LDFS_G_IN_SLOT, LDFS_G_SAVED))
		return false;
	add_relaxed(&d->final_count[d->how[g] - 1], 1);
	became_final(d, g);
	return true;
}

/* IN_SLOT -> LOST: the slot could not be written. */
bool ldfs_step_slot_lost(ldfs_dump *d, uint32_t g)
{
	return lose_from(d, g, LDFS_G_IN_SLOT);
}

/* ARMED or SWEEPING -> LOST: no slot and no wait for one. */
bool ldfs_step_lose(ldfs_dump *d, uint32_t g)
{
	return lose_from(d, g, LDFS_G_ARMED) || lose_from(d, g, LDFS_G_SWEEPING);
}

/* CLAIMED or STEALING -> LOST: the copy itself failed, or the guard lets go of all memory. */
void ldfs_step_copy_lost(ldfs_dump *d, uint32_t g)
{
	while (!lose_from(d, g, LDFS_G_STEALING) && !lose_from(d, g, LDFS_G_CLAIMED))
		;
}
