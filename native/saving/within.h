/* SPDX-License-Identifier: GPL-2.0-or-later */
/* within.h - what the files of saving/ offer each other, and no other room. */
#ifndef LDFS_SAVING_WITHIN_H
#define LDFS_SAVING_WITHIN_H

#include "saving/saving.h"

/* ---------------------------------------------------------------- batch.c */
void ldfs_batch_take(struct ldfs_batch *b, ldfs_dump *d); /* all that is filled */
uint32_t ldfs_batch_granule(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i);
/* Whether slot i of the batch may be written: no sweep I/O on its granule is under way. */
bool ldfs_batch_writable(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i);
/* Anything to do for a thread with that batch? Else wait until `deadline_ns` for it. */
void ldfs_batch_wait(const struct ldfs_batch *b, ldfs_dump *d, uint64_t deadline_ns);

/* ----------------------------------------------------------------- pack.c */
/* Pack granule g, whose bytes are at `bytes`, to `out`: fills in its sizes. Bytes used. */
uint64_t ldfs_pack_granule(ldfs_dump *d, struct codec *c, uint32_t g, const void *bytes,
			   uint8_t *out);
/* Bytes stored for granule g. */
uint64_t ldfs_pack_stored(const ldfs_dump *d, uint32_t g);
/* Append to the target; *at is where. */
int ldfs_pack_append(ldfs_dump *d, const void *bytes, uint64_t length, uint64_t *at);
/* Write the descriptors of the granules that `block` calls saved or holes. table.lock is held. */
int ldfs_pack_note(ldfs_dump *d, const ldfs_table_block *block);

/* ---------------------------------------------------------------- sweep.c
 * How the sweep goes through the granules, here and in the packers.
 */
#define LDFS_RUN_BYTES (1u << 20)  /* claimed at once, and made writable again at once */
#define LDFS_RUN_DIRECT (4u << 20) /* the same where nothing is copied: one I/O */
#define LDFS_RUN_MOST (LDFS_RUN_DIRECT / LDFS_PAGE_SIZE) /* granules of a run */

/* Claim the run of armed granules that begins at or after *first, below `limit`. False: none left.
 */
bool ldfs_sweep_claim(ldfs_dump *d, uint32_t *first, uint32_t *end, uint32_t limit);
/* `states` are those that ldfs_step_sweep_over gave for [first, end): open, and wake who waits. */
void ldfs_sweep_opened(ldfs_dump *d, const uint8_t *states, uint32_t first, uint32_t end);
/* The target failed with `rc` for claimed [first, end). */
void ldfs_sweep_failed(ldfs_dump *d, uint32_t first, uint32_t end, int rc);
/* When the sweep may go on, by its rate. */
uint64_t ldfs_sweep_due_ns(const ldfs_dump *d);
/* Granules of one run. */
uint32_t ldfs_sweep_run_most(const ldfs_dump *d);
bool ldfs_sweep_all_full(const ldfs_dump *d, uint32_t first, uint32_t end);

#endif
