/* SPDX-License-Identifier: GPL-2.0-or-later */
/* within.h - functions that only the files of saving/ use. */
#ifndef LDFS_SAVING_WITHIN_H
#define LDFS_SAVING_WITHIN_H

#include "saving/saving.h"

#define LDFS_TICK_NS 50000000u /* the table's marks are written at least so often */
#ifndef LDFS_SHARE_LEAST
#define LDFS_SHARE_LEAST 64 /* slots of one write of the writer: fewer are not shared */
#endif

/* ---------------------------------------------------------------- batch.c */
void ldfs_batch_take(struct ldfs_batch *b, ldfs_dump *d); /* take all filled slots */
uint32_t ldfs_batch_granule(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i);
/* Whether slot i of the batch may be written: no I/O of the sweep on its granule is in progress. */
bool ldfs_batch_writable(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i);
/*
 * Give back what is beyond an equal share of `sharers` threads and beyond `least` slots: others may
 * be idle.
 */
void ldfs_batch_share(struct ldfs_batch *b, ldfs_dump *d, uint32_t sharers, uint32_t least);
/* Give back all, also what may not be written yet. */
void ldfs_batch_give_back(struct ldfs_batch *b, ldfs_dump *d);
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

/* --------------------------------------------------------------- writer.c */
/*
 * Take filled slots, a share of them, and write to the target those of `batch` that may be written.
 * False: there was none.
 */
bool ldfs_writer_save(ldfs_dump *d, struct ldfs_batch *batch);

/* --------------------------------------------------------------- effort.c
 * How many helpers are called: measured. Between begin and end a thread is at work for the target,
 * which it may wait for.
 */
struct ldfs_spent {
	uint64_t wall_ns, cpu_ns;
	long sleeps; /* how often it gave its processor up by itself */
};

void ldfs_effort_begin(const ldfs_dump *d, struct ldfs_spent *spent);
void ldfs_effort_end(ldfs_dump *d, const struct ldfs_spent *spent);
/* How many helpers are to be made. */
uint32_t ldfs_effort_helpers(void);
/* How many of them are to work now. */
uint32_t ldfs_effort_called(const ldfs_dump *d);

/*
 * A write that failed was to a pipe, and RELEASE cancelled it: pool and states are about to be
 * freed, so do not count anything as lost.
 */
static inline bool ldfs_cut_off(const ldfs_dump *d)
{
	return d->target.stream && ldfs_released(d);
}

/* --------------------------------------------------------------- helper.c */
struct ldfs_helper {
	ldfs_dump *d;
	uint32_t index;
	pthread_t thread;
	struct ldfs_batch batch;
	uint8_t *scratch; /* one granule */
};

/* --------------------------------------------------------- claims.c, piece.c
 * How the sweep goes through the granules, in pieces and these in runs; used by the sweep, the
 * helpers and the packers.
 */
#ifndef LDFS_RUN_BYTES
#define LDFS_RUN_BYTES (1u << 20) /* bytes of a run: claimed, and made writable again, together */
#endif
#define LDFS_RUN_DIRECT (4u << 20) /* the same when the target takes direct I/O: one write */
#define LDFS_RUN_MOST (LDFS_RUN_DIRECT / LDFS_PAGE_SIZE) /* most granules of a run */

/* The next piece [*first, *limit) of the arena that no other thread takes. False: none is left. */
bool ldfs_sweep_next(ldfs_dump *d, uint32_t *first, uint32_t *limit);
/*
 * Take the next piece and save what is armed of it. `scratch` has room for a granule. False: none
 * is left, or the dump is released.
 */
bool ldfs_sweep_piece(ldfs_dump *d, uint8_t *scratch);
/* Whether SWEEP has come, and its thread has begun. */
bool ldfs_sweep_begun(const ldfs_dump *d);
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

/* ---------------------------------------------------------------- close.c */
/*
 * Behind the sweep of [first, end): protect there what was live before the swap, for the next
 * INIT. The kernel's data on these pages is in the processor's cache now, so it costs half. All
 * granules of a stretch, however they were saved: a mapping in one piece stays one.
 */
void ldfs_sweep_close(ldfs_dump *d, uint32_t first, uint32_t end);

#endif
