/* SPDX-License-Identifier: GPL-2.0-or-later */
/* make.c - the struct of a dump: made, with what it needs for each granule, and freed. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "life/life.h"

ldfs_dump *ldfs_life_new(ldfs_arena *a, const ldfs_dump_config *c, uint64_t granule)
{
	ldfs_dump *d = aligned_alloc(CACHE_LINE,
				     (sizeof(*d) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);

	if (!d)
		return NULL;
	memset(d, 0, sizeof(*d));
	d->arena = a;
	d->granule_shift = (uint32_t)__builtin_ctzll(granule);
	d->granules = (uint32_t)((a->size + granule - 1) / granule);
	d->policy = c->policy;
	d->at_limit = c->at_limit;
	d->arming = c->arming;
	d->backend = c->backend;
	d->sweep_rate = c->sweep_rate;
	d->stall_deadline_ns = c->stall_deadline_ns;
	d->target.fd = d->target.direct_fd = d->table.fd = d->reference_fd = -1;
	memcpy(d->wished, c->since, sizeof(d->wished));
	d->phase = LDFS_PHASE_READY;
	return d;
}

/* Does not overwrite the mark of a discard, which may punch a hole where data was just found. */
static void mark_full(ldfs_dump *d, uint32_t g)
{
	uint8_t unknown = 0;

	cas_seq(&d->full[g], &unknown, GRANULE_FULL);
}

static void mark_range(void *dump, uint64_t start, uint64_t end)
{
	ldfs_dump *d = dump;
	uint32_t g = ldfs_granule_of(d, start + (1ULL << d->granule_shift) - 1);

	while (g < d->granules && ldfs_granule_start(d, g) + ldfs_granule_length(d, g) <= end)
		mark_full(d, g++);
}

/* See life.h. */
int ldfs_life_find_full(ldfs_dump *d)
{
	return ldfs_arena_each_data(d->arena, mark_range, d);
}

int ldfs_life_make_granules(ldfs_dump *d)
{
	d->state = calloc(d->granules, sizeof(*d->state)); /* all LDFS_G_ARMED, which is 0 */
	d->writable = calloc(d->granules, sizeof(*d->writable));
	d->full = calloc(d->granules, sizeof(*d->full));
	d->slot_of = calloc(d->granules, sizeof(*d->slot_of));
	d->checksum = calloc(d->granules, sizeof(*d->checksum));
	d->how = calloc(d->granules, sizeof(*d->how));
	d->sweep_scratch = ldfs_buffer_make(1ULL << d->granule_shift);
	if (!d->state || !d->writable || !d->full || !d->slot_of || !d->checksum || !d->how ||
	    !d->sweep_scratch)
		return -ENOMEM;
	store_seq(&d->remaining, d->granules);
	d->islands_most = (int64_t)(ldfs_life_map_room() / 2);
	return 0;
}

void ldfs_life_free(ldfs_dump *d)
{
	ldfs_packers_destroy(d);
	ldfs_helpers_destroy(d);
	ldfs_pack_destroy(d);
	ldfs_table_destroy(d);
	ldfs_target_destroy(&d->target);
	ldfs_ring_destroy(&d->ring);
	if (d->reference_fd >= 0)
		close(d->reference_fd);
	free((void *)d->state);
	free((void *)d->writable);
	free((void *)d->full);
	free((void *)d->slot_of);
	free(d->checksum);
	free(d->how);
	free(d->same);
	free(d->same_sum);
	ldfs_buffer_free(d->sweep_scratch, 1ULL << d->granule_shift);
	free(d->writer_batch.slots);
	free(d);
}
