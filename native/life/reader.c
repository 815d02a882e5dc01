/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * reader.c - reading the snapshot while machine, sweep and writer go on.
 *
 * Optimistic: read the state, copy from the place that it names, and read the state again; if it
 * has changed, try again. A reader never makes another thread wait. The second read of the state is
 * a read-modify-write: an ordinary load could be executed before the copy has ended.
 */
#include <errno.h>
#include <string.h>

#include "life/life.h"

static uint8_t state_again(ldfs_dump *d, uint32_t g)
{
	return look_seq(&d->state[g]);
}

static bool in_memory(uint8_t s)
{
	return s == LDFS_G_ARMED || s == LDFS_G_CLAIMED || s == LDFS_G_SWEEPING ||
	       s == LDFS_G_STEALING;
}

static bool in_slot(uint8_t s)
{
	return s == LDFS_G_IN_SLOT || s == LDFS_G_STOLEN;
}

static void copy_slot(ldfs_dump *d, uint32_t g, uint64_t within, void *buf, uint64_t length)
{
	uint32_t slot = load_acquire(&d->slot_of[g]);

	memcpy(buf, ldfs_slot_bytes(&d->ring, slot) + within, length);
}

/*
 * Read the bytes [offset, offset + length) of the arena, all within granule g. -EAGAIN: its state
 * changed during the copy.
 */
static int try_read(ldfs_dump *d, uint32_t g, uint64_t offset, void *buf, uint64_t length)
{
	uint8_t s = ldfs_state(d, g);
	int rc;

	switch (s) {
	case LDFS_G_SAVED:
		return d->pack.on ? ldfs_pack_read(d, g, offset, buf, length)
				  : ldfs_target_read(&d->target, offset, buf, length);
	case LDFS_G_HOLE:
		memset(buf, 0, length);
		return 0;
	case LDFS_G_LOST:
		return -EIO;
	}
	if (in_memory(s)) {
		rc = ldfs_read_all(d->arena->memfd, buf, length, offset);
		return rc ? rc : in_memory(state_again(d, g)) ? 0 : -EAGAIN;
	}
	copy_slot(d, g, offset - ldfs_granule_start(d, g), buf, length);
	return in_slot(state_again(d, g)) ? 0 : -EAGAIN;
}

static bool readable(const ldfs_dump *d)
{
	int phase = ldfs_dump_phase(d);

	return phase != LDFS_PHASE_READY && phase != LDFS_PHASE_RELEASED;
}

static int read_granules(ldfs_dump *d, uint64_t offset, uint8_t *buf, uint64_t length)
{
	while (length > 0) {
		uint32_t g = ldfs_granule_of(d, offset);
		uint64_t end = ldfs_granule_start(d, g) + ldfs_granule_length(d, g);
		uint64_t piece = end - offset < length ? end - offset : length;
		int rc;

		do {
			rc = readable(d) ? try_read(d, g, offset, buf, piece) : -ENODATA;
		} while (rc == -EAGAIN);
		if (rc)
			return rc;
		buf += piece;
		offset += piece;
		length -= piece;
	}
	return readable(d) ? 0 : -ENODATA;
}

int ldfs_dump_read(ldfs_dump *d, uint64_t offset, void *buf, uint64_t length)
{
	int rc;

	/* A forked child has the states as of its fork, but the memfd as of now. */
	if (ldfs_arena_foreign(d->arena))
		return -ECHILD;
	if (offset > d->arena->size || length > d->arena->size - offset)
		return -EINVAL;
	add_seq(&d->readers, 1);
	rc = read_granules(d, offset, buf, length);
	sub_seq(&d->readers, 1);
	return rc;
}
