/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * saving.h - saves granules to the target while the machine runs: the threads of the sweep, the
 * writer, the packers and the pool's keeper, and the granule table and page descriptors that they
 * write.
 *
 * It changes granule states only by the steps of state/. It refuses to handle stores (fault/), and
 * to begin or end a dump (life/): its threads wait for a phase, and end when the dump is
 * released. The init, start, join and destroy functions are for the thread that does INIT or frees
 * the dump; the others are for the threads of this directory. None is [signal]. Functions that
 * return int return 0 or -errno.
 */
#ifndef LDFS_SAVING_H
#define LDFS_SAVING_H

#include "state/state.h"

/* ---------------------------------------------------------------- threads */
void *ldfs_sweep_main(void *dump);  /* sweep.c */
void *ldfs_writer_main(void *dump); /* writer.c */
/* keeper.c; only where the pool grows: the first, and all others. */
void *ldfs_keeper_main(void *dump);
void *ldfs_keeper_more_main(void *dump);
uint32_t ldfs_keepers_wanted(const ldfs_dump *d);

/* --------------------------------------------------------------- packer.c */
int ldfs_packers_init(ldfs_dump *d, uint32_t count);
void ldfs_packers_destroy(ldfs_dump *d);
int ldfs_packers_start(ldfs_dump *d);
void ldfs_packers_join(ldfs_dump *d);

/* --------------------------------------------------------------- helper.c
 * Threads that write slots and sweep beside writer and sweep, while more of them make it faster.
 * Start them before those two.
 */
void ldfs_helpers_init(ldfs_dump *d);
void ldfs_helpers_destroy(ldfs_dump *d);
void ldfs_helpers_start(ldfs_dump *d);
void ldfs_helpers_join(ldfs_dump *d);

/* ---------------------------------------------------------------- table.c */
int ldfs_table_init(ldfs_dump *d, const ldfs_dump_config *config);
void ldfs_table_destroy(ldfs_dump *d);
int ldfs_table_write_empty(ldfs_dump *d);
int ldfs_table_flush(ldfs_dump *d); /* write all dirty blocks to the target */
void ldfs_table_tick(ldfs_dump *d); /* the same, at most every 50 ms; records errors in the dump */

/* ----------------------------------------------------------------- pack.c */
int ldfs_pack_init(ldfs_dump *d, const ldfs_dump_config *config);
void ldfs_pack_destroy(ldfs_dump *d);
/*
 * [any thread] Read the bytes [offset, offset + length) of the arena, all within granule g, which
 * is SAVED, from the target. -EIO: they went to a pipe and cannot be read back.
 */
int ldfs_pack_read(const ldfs_dump *d, uint32_t g, uint64_t offset, void *buf, uint64_t length);

/* ---------------------------------------------------------------- batch.c */
int ldfs_batch_init(struct ldfs_batch *b, const struct ldfs_ring *r);

#endif
