/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * table.c - the granule table on the target: blocks of marks (one entry for each granule), each
 * block with the id of its dump and a checksum. The format is in ldfs.h and docs/formats.md.
 *
 * A mark is made from a granule's final state, and a state becomes final only after its data was
 * written: data before mark. A block's dirty flag is cleared before the block is composed. So a
 * later step sets the flag again, and the next flush writes the block again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "saving/within.h"

#define FLUSH_INTERVAL_NS 50000000u

_Static_assert(sizeof(ldfs_table_entry) == 24, "on-target layout");
_Static_assert(sizeof(ldfs_table_block) == LDFS_TABLE_BLOCK_SIZE, "on-target layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the table is little-endian");

int ldfs_table_init(ldfs_dump *d, const ldfs_dump_config *config)
{
	struct ldfs_table *t = &d->table;

	t->fd = -1;
	t->blocks = (uint32_t)(((uint64_t)d->granules + LDFS_TABLE_BLOCK_ENTRIES - 1) /
			       LDFS_TABLE_BLOCK_ENTRIES);
	t->dirty = calloc(t->blocks, sizeof(*t->dirty));
	if (!t->dirty)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	if (config->table_fd < 0)
		return 0;
	if (config->table_offset % 512)
		return -EINVAL;
	t->offset = config->table_offset;
	memcpy(t->dump_id, config->dump_id, sizeof(t->dump_id));
	t->fd = fcntl(config->table_fd, F_DUPFD_CLOEXEC, 3);
	return t->fd < 0 ? -errno : 0;
}

void ldfs_table_destroy(ldfs_dump *d)
{
	if (d->table.fd >= 0)
		close(d->table.fd);
	d->table.fd = -1;
	free((void *)d->table.dirty);
	d->table.dirty = NULL;
}

static void compose_entry(const ldfs_dump *d, uint32_t g, ldfs_table_entry *e)
{
	uint8_t s = ldfs_state(d, g);

	e->state = ldfs_state_final(s) ? s : LDFS_G_ARMED;
	if (s == LDFS_G_HOLE)
		e->how = LDFS_BY_SWEEP;
	if (s != LDFS_G_SAVED)
		return;
	/* Only publishing a slot sets `how`: if it is not set, the sweep saved the granule. */
	e->how = d->how[g] ? d->how[g] : LDFS_BY_SWEEP;
	e->checksum = d->checksum[g];
	e->stored = (uint32_t)ldfs_granule_length(d, g);
	if (!d->pack.on)
		return;
	e->stored = (uint32_t)ldfs_pack_stored(d, g);
	e->where = e->stored ? d->pack.where[g] : 0;
}

static void compose_block(const ldfs_dump *d, uint32_t index, ldfs_table_block *block)
{
	uint32_t first = index * LDFS_TABLE_BLOCK_ENTRIES, left = d->granules - first;

	memset(block, 0, sizeof(*block));
	memcpy(block->magic, LDFS_TABLE_MAGIC, sizeof(block->magic));
	memcpy(block->dump_id, d->table.dump_id, sizeof(block->dump_id));
	block->index = index;
	block->count = left < LDFS_TABLE_BLOCK_ENTRIES ? left : LDFS_TABLE_BLOCK_ENTRIES;
	for (uint32_t i = 0; i < block->count; i++)
		compose_entry(d, first + i, &block->entries[i]);
	block->checksum = ldfs_checksum(block, sizeof(*block));
}

static int put_block(ldfs_dump *d, const ldfs_table_block *block)
{
	uint64_t at = d->table.offset + (uint64_t)block->index * sizeof(*block);

	return d->target.stream ? ldfs_stream_write(d->target.stream, block, sizeof(*block), at)
				: ldfs_write_all(d->table.fd, block, sizeof(*block), at);
}

static int write_block(ldfs_dump *d, uint32_t index)
{
	ldfs_table_block block;
	int rc = 0;

	compose_block(d, index, &block);
	/*
	 * The states first, then the phase: after RELEASE memory is writable, and a granule that a
	 * handler or the sweep was still copying reaches a final state with bytes of later.
	 */
	if (ldfs_released(d))
		return 0;
	if (d->pack.on)
		rc = ldfs_pack_note(d, &block); /* before the marks that vouch for them */
	return rc ? rc : put_block(d, &block);
}

int ldfs_table_write_empty(ldfs_dump *d)
{
	for (uint32_t i = 0; i < d->table.blocks; i++)
		store_seq(&d->table.dirty[i], 1);
	if (!d->target.stream)
		return ldfs_table_flush(d);
	/*
	 * What was written to a pipe cannot be changed: the table is written once, when all is
	 * final.
	 */
	store_seq(&d->table.next_flush_ns, UINT64_MAX);
	return 0;
}

/* The caller holds the lock. */
static int flush(ldfs_dump *d)
{
	struct ldfs_table *t = &d->table;
	int rc = 0;

	for (uint32_t i = 0; t->fd >= 0 && i < t->blocks && !rc; i++) {
		if (!exchange_seq(&t->dirty[i], 0))
			continue;
		rc = write_block(d, i);
		if (rc)
			store_seq(&t->dirty[i], 1);
	}
	return rc;
}

int ldfs_table_flush(ldfs_dump *d)
{
	int rc;

	pthread_mutex_lock(&d->table.lock);
	rc = flush(d);
	pthread_mutex_unlock(&d->table.lock);
	return rc;
}

void ldfs_table_tick(ldfs_dump *d)
{
	uint64_t now = ldfs_now_ns(), due = load_seq(&d->table.next_flush_ns);
	int rc;

	if (now < due || !cas_seq(&d->table.next_flush_ns, &due, now + FLUSH_INTERVAL_NS))
		return;
	/* Another thread is flushing: do not wait for it. */
	if (pthread_mutex_trylock(&d->table.lock))
		return;
	rc = flush(d);
	pthread_mutex_unlock(&d->table.lock);
	if (rc) {
		ldfs_fail(d, LDFS_OP_WRITE_TABLE, -rc, UINT64_MAX);
		ldfs_give_up(d);
	}
}
