/* SPDX-License-Identifier: GPL-2.0-or-later */
/* within.h - functions that only the files of saving/ use. */
#ifndef LDFS_SAVING_WITHIN_H
#define LDFS_SAVING_WITHIN_H

#include "saving/saving.h"

/* ---------------------------------------------------------------- batch.c */
void ldfs_batch_take(struct ldfs_batch *b, ldfs_dump *d); /* take all filled slots */
uint32_t ldfs_batch_granule(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i);
/* Whether slot i of the batch may be written: no I/O of the sweep on its granule is in progress. */
bool ldfs_batch_writable(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i);
/* Wait until there is work for the thread with that batch, or until `deadline_ns`. */
void ldfs_batch_wait(const struct ldfs_batch *b, ldfs_dump *d, uint64_t deadline_ns);

/* ----------------------------------------------------------------- pack.c */
/*
 * Pack granule g, whose bytes are at `bytes`, to `out`, which has room for all of them, and record
 * the sizes of its pages. Returns the bytes used.
 */
uint64_t ldfs_pack_granule(ldfs_dump *d, struct codec *c, uint32_t g, const void *bytes,
			   uint8_t *out);
/* Bytes that are stored for granule g. */
uint64_t ldfs_pack_stored(const ldfs_dump *d, uint32_t g);
/* Append to the end of the data on the target; *at is the offset where the bytes went. */
int ldfs_pack_append(ldfs_dump *d, const void *bytes, uint64_t length, uint64_t *at);
/*
 * Write the page descriptors of the granules that `block` marks SAVED or HOLE. The caller holds
 * table.lock.
 */
int ldfs_pack_note(ldfs_dump *d, const ldfs_table_block *block);

/* ---------------------------------------------------------------- sweep.c
 * How the sweep goes through the granules, in runs; used by sweep.c and the packers.
 */
#define LDFS_RUN_BYTES (1u << 20)  /* bytes of a run: claimed, and made writable again, together */
#define LDFS_RUN_DIRECT (4u << 20) /* the same when the target takes direct I/O: one write */
#define LDFS_RUN_MOST (LDFS_RUN_DIRECT / LDFS_PAGE_SIZE) /* most granules of a run */

/*
 * Claim the next run [*first, *end) of armed granules that begins at or after *first, below
 * `limit`. False: none is left.
 */
bool ldfs_sweep_claim(ldfs_dump *d, uint32_t *first, uint32_t *end, uint32_t limit);
/*
 * `states` are the results of ldfs_step_sweep_over for [first, end): make the granules writable,
 * and wake the threads that wait for them or for a slot.
 */
void ldfs_sweep_opened(ldfs_dump *d, const uint8_t *states, uint32_t first, uint32_t end);
/* Record that writing the claimed granules [first, end) failed with `rc`. */
void ldfs_sweep_failed(ldfs_dump *d, uint32_t first, uint32_t end, int rc);
/* The time (CLOCK_MONOTONIC) at which the sweep may write again, by its rate limit. */
uint64_t ldfs_sweep_due_ns(const ldfs_dump *d);
/* How many granules a run may have now. */
uint32_t ldfs_sweep_run_most(const ldfs_dump *d);
bool ldfs_sweep_all_full(const ldfs_dump *d, uint32_t first, uint32_t end);

/* ---------------------------------------------------------------- close.c */
/*
 * Behind the sweep of [first, end): protect there what was live before the swap, for the next
 * INIT. The kernel's data on these pages is in the processor's cache now, so it costs half. All
 * granules of a stretch, however they were saved: a mapping in one piece stays one.
 */
void ldfs_sweep_close(ldfs_dump *d, uint32_t first, uint32_t end);

#endif
