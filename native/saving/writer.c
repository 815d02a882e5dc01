/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writer.c - the thread that writes filled slots to the target, and how a helper does the same.
 *
 * Each takes all filled slots at once, gives back what is beyond its share, and writes the rest in
 * the order of the granules; slots of granules that the sweep is still writing stay in its batch.
 * The granule's state changes before the slot is freed: a reader that copied from the slot sees
 * that when it looks at the state again. A packed target has packers instead (packer.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "saving/within.h"

#define IOV_MOST 64

struct writer {
	ldfs_dump *d;
	struct ldfs_batch *batch;
};

/* ----------------------------------------------------------------- the batch */

static int by_granule(const void *a, const void *b, void *slots)
{
	const struct ldfs_slot *s = slots;
	uint32_t x = s[*(const uint32_t *)a].granule, y = s[*(const uint32_t *)b].granule;

	return x < y ? -1 : x > y;
}

static uint32_t granule_of(const struct writer *w, uint32_t i)
{
	return ldfs_batch_granule(w->batch, w->d, i);
}

/*
 * Entries from i up to the returned one (exclusive) are neighbours on the target: one call writes
 * them. Whole granules, at most IOV_MOST.
 */
static uint32_t run_end(const struct writer *w, uint32_t i)
{
	ldfs_dump *d = w->d;
	uint64_t at, room, used = ldfs_granule_length(d, granule_of(w, i));
	uint32_t end = i + 1;

	room = ldfs_target_run(&d->target, ldfs_granule_start(d, granule_of(w, i)), &at);
	while (end < w->batch->count && end - i < IOV_MOST &&
	       granule_of(w, end) == granule_of(w, end - 1) + 1 &&
	       ldfs_batch_writable(w->batch, w->d, end)) {
		used += ldfs_granule_length(d, granule_of(w, end));
		if (used > room)
			break;
		end++;
	}
	return end;
}

/* ------------------------------------------------------------------- writing */

static int write_one(struct writer *w, uint32_t i)
{
	uint32_t g = granule_of(w, i);

	if (load_seq(&w->d->abandoned))
		return -ECANCELED;
	return ldfs_target_write(&w->d->target, ldfs_granule_start(w->d, g),
				 ldfs_slot_bytes(&w->d->ring, w->batch->slots[i]),
				 ldfs_granule_length(w->d, g), false);
}

/*
 * Write several neighbours with one call. False: not everything was written; try each one by
 * itself.
 */
static bool write_together(struct writer *w, uint32_t first, uint32_t end)
{
	ldfs_dump *d = w->d;
	struct iovec iov[IOV_MOST];
	uint64_t at, sum = 0;

	for (uint32_t i = first; i < end; i++) {
		iov[i - first].iov_base = ldfs_slot_bytes(&d->ring, w->batch->slots[i]);
		iov[i - first].iov_len = ldfs_granule_length(d, granule_of(w, i));
		sum += iov[i - first].iov_len;
	}
	if (d->target.stream)
		return false;
	ldfs_target_run(&d->target, ldfs_granule_start(d, granule_of(w, first)), &at);
	return pwritev(d->target.fd, iov, (int)(end - first), (off_t)at) == (ssize_t)sum;
}

static void finish_one(struct writer *w, uint32_t i, int error)
{
	ldfs_dump *d = w->d;
	uint32_t slot = w->batch->slots[i], g = granule_of(w, i);
	uint64_t length = ldfs_granule_length(d, g);

	if (error && ldfs_cut_off(d))
		return;
	if (error) {
		if (error != -ECANCELED)
			ldfs_target_failed(d, error, ldfs_granule_start(d, g) / LDFS_PAGE_SIZE);
		ldfs_step_slot_lost(d, g);
	} else {
		add_relaxed(&d->bytes_pool, length);
		ldfs_step_saved(d, g, ldfs_checksum(ldfs_slot_bytes(&d->ring, slot), length));
	}
	ldfs_ring_freed(&d->ring, slot);
}

static void write_entries(struct writer *w, uint32_t first, uint32_t end)
{
	struct ldfs_spent spent;
	bool together;

	ldfs_effort_begin(w->d, &spent);
	together = end - first > 1 && !load_seq(&w->d->abandoned) && write_together(w, first, end);
	for (uint32_t i = first; i < end; i++)
		finish_one(w, i, together ? 0 : write_one(w, i));
	ldfs_effort_end(w->d, &spent);
}

/*
 * Write the slots that may be written; those whose granule the sweep still writes stay in the
 * batch. False: there was none to write.
 */
static bool write_batch(struct writer *w)
{
	uint32_t called = ldfs_effort_called(w->d), kept = 0, i, end;
	bool any = false;

	qsort_r(w->batch->slots, w->batch->count, sizeof(*w->batch->slots), by_granule,
		w->d->ring.slots);
	for (i = 0; i < w->batch->count && !ldfs_released(w->d); i = end) {
		if (called != ldfs_effort_called(w->d))
			break; /* the shares are others now */
		end = i + 1;
		if (!ldfs_batch_writable(w->batch, w->d, i)) {
			w->batch->slots[kept++] = w->batch->slots[i];
			continue;
		}
		end = run_end(w, i);
		write_entries(w, i, end);
		any = true;
	}
	while (i < w->batch->count)
		w->batch->slots[kept++] = w->batch->slots[i++];
	w->batch->count = kept;
	return any;
}

bool ldfs_writer_save(ldfs_dump *d, struct ldfs_batch *batch)
{
	struct writer w = { .d = d, .batch = batch };

	ldfs_batch_take(batch, d);
	ldfs_batch_share(batch, d, 1 + ldfs_effort_called(d), LDFS_SHARE_LEAST);
	return write_batch(&w);
}

/* ------------------------------------------------------------------ the thread */

void *ldfs_writer_main(void *dump)
{
	ldfs_dump *d = dump;
	struct ldfs_batch *batch = &d->writer_batch;

	while (!ldfs_released(d)) {
		ldfs_writer_save(d, batch);
		ldfs_table_tick(d);
		ldfs_batch_wait(batch, d, ldfs_deadline(LDFS_TICK_NS));
	}
	ldfs_threads_ended(d);
	return NULL;
}
