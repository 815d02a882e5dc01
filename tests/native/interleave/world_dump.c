/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_dump.c - the state of the core's dump, as a hash. */
#include "saving/within.h"
#include "world_parts.h"

static uint64_t mix_event(uint64_t h, const struct ldfs_event *e)
{
	return mix(mix(h, atomic_load(&e->seq)), atomic_load(&e->waiters));
}

static uint64_t mix_ring(uint64_t h, const struct ldfs_ring *r)
{
	h = mix(h, atomic_load(&r->free));
	h = mix(h, (uint64_t)atomic_load(&r->filled) << 32 | atomic_load(&r->in_use));
	h = mix(h, (uint64_t)atomic_load(&r->made) << 32 | atomic_load(&r->limit));
	h = mix(h, (uint64_t)r->planned << 32 | r->away << 16 | r->growing);
	h = mix(h, atomic_load(&r->ahead));
	for (uint32_t i = 0; i < r->reserved; i++) {
		h = mix(h, (uint64_t)atomic_load(&r->slots[i].next) << 32 | r->slots[i].granule);
		h = mix(h, word_at(ldfs_slot_bytes(r, i)));
		h = mix(h, word_at(ldfs_slot_bytes(r, i) + HALF));
	}
	h = mix_event(h, &r->freed);
	h = mix_event(h, &r->arrived);
	return mix_event(h, &r->low);
}

static uint64_t mix_granule(uint64_t h, const ldfs_dump *d, uint32_t g)
{
	h = mix(h, (uint64_t)atomic_load(&d->state[g]) << 32 | (uint64_t)d->writable[g] << 24 |
			   (uint64_t)d->full[g] << 16 | d->how[g]);
	h = mix(h, d->slot_of[g]);
	return mix(h, d->checksum[g]);
}

static uint64_t mix_batch(uint64_t h, const struct ldfs_batch *b)
{
	for (uint32_t i = 0; i < b->count; i++)
		h = mix(h, b->slots[i] + 1);
	return mix(h, b->count);
}

static uint64_t mix_dump(uint64_t h, const ldfs_dump *d)
{
	for (uint32_t g = 0; g < world.granules; g++)
		h = mix_granule(h, d, g);
	h = mix_ring(h, &d->ring);
	h = mix_event(h, &d->progress);
	h = mix(h, d->phase | (uint64_t)d->gave_up << 8 | (uint64_t)d->abandoned << 9 |
			   (uint64_t)d->readers << 16 | (uint64_t)d->threads_running << 24 |
			   (uint64_t)d->release_begun << 32 | (uint64_t)d->release_done << 33 |
			   (uint64_t)d->not_durable << 34 | (uint64_t)d->eio_count << 40);
	h = mix(h, d->remaining);
	h = mix(h, (uint64_t)d->islands);
	h = mix(h, d->table.dirty[0] | (uint64_t)d->table.next_flush_ns << 1);
	h = mix(h, d->sweep_next << 8 | d->effort.called);
	h = mix_event(h, &d->effort.change);
	for (uint32_t i = 0; i < d->effort.helpers; i++)
		h = mix_batch(h, &d->helpers[i].batch);
	return mix_batch(h, &d->writer_batch);
}

uint64_t dump_state(uint64_t h)
{
	const struct ldfs_fault_seat *f = &ldfs_fault_seats[world_arena->fault_seat];

	h = mix(h, (uint64_t)f->handlers << 32 | f->callers);
	h = mix(h, (world_arena->dump != NULL) | (uint64_t)(world_arena->owner != NULL) << 1);
	return world_dump ? mix_dump(h, world_dump) : h;
}
