/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * batch.c - the filled slots that one thread has taken in order to write them.
 *
 * The stack of filled slots is always taken as a whole, so that each slot is in one batch only. A
 * slot whose granule the sweep is still writing is kept in the batch until that I/O has ended: the
 * slot is written after it, and its bytes, which are those of the instant, overwrite the sweep's.
 */
#include <errno.h>
#include <stdlib.h>

#include "saving/within.h"

int ldfs_batch_init(struct ldfs_batch *b, const struct ldfs_ring *r)
{
	b->slots = malloc(r->reserved * sizeof(*b->slots));
	return b->slots ? 0 : -ENOMEM;
}

void ldfs_batch_take(struct ldfs_batch *b, ldfs_dump *d)
{
	struct ldfs_ring *r = &d->ring;
	uint32_t link = ldfs_ring_take_filled(r);

	for (; link; link = load_relaxed(&r->slots[link - 1].next))
		b->slots[b->count++] = link - 1;
}

uint32_t ldfs_batch_granule(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i)
{
	return d->ring.slots[b->slots[i]].granule;
}

bool ldfs_batch_writable(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i)
{
	return ldfs_state(d, ldfs_batch_granule(b, d, i)) == LDFS_G_IN_SLOT;
}

void ldfs_batch_give_back(struct ldfs_batch *b, ldfs_dump *d)
{
	while (b->count)
		ldfs_ring_put(&d->ring, b->slots[--b->count]);
}

void ldfs_batch_share(struct ldfs_batch *b, ldfs_dump *d, uint32_t sharers, uint32_t least)
{
	uint32_t most = b->count / sharers > least ? b->count / sharers : least;

	while (b->count > most && ldfs_batch_writable(b, d, b->count - 1))
		ldfs_ring_put(&d->ring, b->slots[--b->count]);
}

static bool something_to_do(const struct ldfs_batch *b, ldfs_dump *d)
{
	if (ldfs_released(d) || load_seq(&d->ring.filled))
		return true;
	for (uint32_t i = 0; i < b->count; i++)
		if (ldfs_batch_writable(b, d, i))
			return true;
	return false;
}

void ldfs_batch_wait(const struct ldfs_batch *b, ldfs_dump *d, uint64_t deadline_ns)
{
	struct ldfs_event *arrived = &d->ring.arrived;
	uint32_t seen = ldfs_event_prepare(arrived);

	if (something_to_do(b, d))
		ldfs_event_cancel(arrived);
	else
		ldfs_event_wait(arrived, seen, deadline_ns);
}
