/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writer.c - the thread that puts filled slots on the target.
 *
 * It takes all that is filled at once and writes it in the order of the granules. A slot whose
 * granule the sweep is still writing is put aside until that I/O has ended: the slot is written
 * after it, and so wins. The state changes before the slot is freed: a reader who copied from the
 * slot sees that when it looks at the state again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "internal.h"

#define TICK_NS 50000000u /* marks are written at least so often */
#define IOV_MOST 64

struct writer {
	ldfs_dump *d;
	uint32_t *batch; /* slots, room for all */
	uint32_t count;
};

/* ----------------------------------------------------------------- the batch */

static void take_filled(struct writer *w)
{
	struct ldfs_ring *r = &w->d->ring;
	uint32_t link = ldfs_ring_take_filled(r);

	for (; link; link = load_relaxed(&r->slots[link - 1].next))
		w->batch[w->count++] = link - 1;
}

static int by_granule(const void *a, const void *b, void *slots)
{
	const struct ldfs_slot *s = slots;
	uint32_t x = s[*(const uint32_t *)a].granule, y = s[*(const uint32_t *)b].granule;

	return x < y ? -1 : x > y;
}

static uint32_t granule_of(const struct writer *w, uint32_t i)
{
	return w->d->ring.slots[w->batch[i]].granule;
}

static bool writable_now(const struct writer *w, uint32_t i)
{
	return ldfs_state(w->d, granule_of(w, i)) == LDFS_G_IN_SLOT;
}

/* Entries [i, end) of the batch that are neighbours on the target, whole granules, IOV_MOST at the most. */
static uint32_t run_end(const struct writer *w, uint32_t i)
{
	ldfs_dump *d = w->d;
	uint64_t at, room, used = ldfs_granule_length(d, granule_of(w, i));
	uint32_t end = i + 1;

	room = ldfs_target_run(&d->target, ldfs_granule_start(d, granule_of(w, i)), &at);
	while (end < w->count && end - i < IOV_MOST &&
	       granule_of(w, end) == granule_of(w, end - 1) + 1 && writable_now(w, end)) {
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
				 ldfs_slot_bytes(&w->d->ring, w->batch[i]),
				 ldfs_granule_length(w->d, g));
}

/* Several neighbours with one call; false: not all of it was written, try each by itself. */
static bool write_together(struct writer *w, uint32_t first, uint32_t end)
{
	ldfs_dump *d = w->d;
	struct iovec iov[IOV_MOST];
	uint64_t at, sum = 0;

	for (uint32_t i = first; i < end; i++) {
		iov[i - first].iov_base = ldfs_slot_bytes(&d->ring, w->batch[i]);
		iov[i - first].iov_len = ldfs_granule_length(d, granule_of(w, i));
		sum += iov[i - first].iov_len;
	}
	ldfs_target_run(&d->target, ldfs_granule_start(d, granule_of(w, first)), &at);
	return pwritev(d->target.fd, iov, (int)(end - first), (off_t)at) == (ssize_t)sum;
}

static void finish_one(struct writer *w, uint32_t i, int error)
{
	ldfs_dump *d = w->d;
	uint32_t slot = w->batch[i], g = granule_of(w, i);
	uint64_t length = ldfs_granule_length(d, g);

	if (error) {
		if (error != -ECANCELED)
			ldfs_target_failed(d, error, ldfs_granule_start(d, g) / LDFS_PAGE_SIZE);
		ldfs_step_slot_lost(d, g);
	} else {
		add_relaxed(&d->bytes_written, length);
		add_relaxed(&d->bytes_pool, length);
		ldfs_step_saved(d, g, ldfs_checksum(ldfs_slot_bytes(&d->ring, slot), length));
	}
	ldfs_ring_give(&d->ring, slot);
}

static void write_entries(struct writer *w, uint32_t first, uint32_t end)
{
	bool together = end - first > 1 && !load_seq(&w->d->abandoned) &&
			write_together(w, first, end);

	for (uint32_t i = first; i < end; i++)
		finish_one(w, i, together ? 0 : write_one(w, i));
}

/* Write what may be written; what the sweep still holds stays in the batch. */
static void write_batch(struct writer *w)
{
	uint32_t kept = 0, end;

	qsort_r(w->batch, w->count, sizeof(*w->batch), by_granule, w->d->ring.slots);
	for (uint32_t i = 0; i < w->count && !ldfs_released(w->d); i = end) {
		end = i + 1;
		if (!writable_now(w, i)) {
			w->batch[kept++] = w->batch[i];
			continue;
		}
		end = run_end(w, i);
		write_entries(w, i, end);
	}
	w->count = kept;
}

/* ------------------------------------------------------------------ the thread */

static bool something_to_do(const struct writer *w)
{
	if (ldfs_released(w->d) || load_seq(&w->d->ring.filled))
		return true;
	for (uint32_t i = 0; i < w->count; i++)
		if (writable_now(w, i))
			return true;
	return false;
}

static void wait_for_work(struct writer *w)
{
	struct ldfs_event *arrived = &w->d->ring.arrived;
	uint32_t seen = ldfs_event_prepare(arrived);

	if (something_to_do(w))
		ldfs_event_cancel(arrived);
	else
		ldfs_event_wait(arrived, seen, ldfs_deadline(TICK_NS));
}

void *ldfs_writer_main(void *dump)
{
	struct writer w = { .d = dump };

	w.batch = w.d->writer_batch;
	while (!ldfs_released(w.d)) {
		take_filled(&w);
		write_batch(&w);
		ldfs_table_tick(w.d);
		wait_for_work(&w);
	}
	ldfs_thread_ended(w.d);
	return NULL;
}
