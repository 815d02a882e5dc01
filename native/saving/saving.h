/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * saving.h - what brings granules to the target while the machine runs: the threads of the sweep,
 * the writer, the packers and the pool's keeper; the granule table and the descriptors that they
 * leave.
 *
 * It takes granules by the steps of state/, and refuses to touch what a store does (fault/), or to
 * begin or end a dump: its threads wait for a phase, and end when the dump is released.
 */
#ifndef LDFS_SAVING_H
#define LDFS_SAVING_H

#include "state/state.h"

/* ---------------------------------------------------------------- threads */
void *ldfs_sweep_main(void *dump);  /* sweep.c */
void *ldfs_writer_main(void *dump); /* writer.c */
void *ldfs_keeper_main(void *dump); /* keeper.c; only under policy spill */

/* --------------------------------------------------------------- packer.c */
int ldfs_packers_init(ldfs_dump *d, uint32_t count);
void ldfs_packers_destroy(ldfs_dump *d);
int ldfs_packers_start(ldfs_dump *d);
void ldfs_packers_join(ldfs_dump *d);

/* ---------------------------------------------------------------- table.c */
int ldfs_table_init(ldfs_dump *d, const ldfs_dump_config *config);
void ldfs_table_destroy(ldfs_dump *d);
int ldfs_table_write_empty(ldfs_dump *d);
int ldfs_table_flush(ldfs_dump *d); /* dirty blocks to the target */
void ldfs_table_tick(ldfs_dump *d); /* the same, when the time has come; errors are kept */

/* ----------------------------------------------------------------- pack.c */
int ldfs_pack_init(ldfs_dump *d, const ldfs_dump_config *config);
void ldfs_pack_destroy(ldfs_dump *d);
/* Bytes [offset, +length) within granule g, which is SAVED. -EIO: they left by a pipe. */
int ldfs_pack_read(const ldfs_dump *d, uint32_t g, uint64_t offset, void *buf, uint64_t length);

/* ---------------------------------------------------------------- batch.c */
int ldfs_batch_init(struct ldfs_batch *b, const struct ldfs_ring *r);

#endif
