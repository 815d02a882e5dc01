/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * life.h - the lives of arenas and dumps: the functions of ldfs.h that make, begin, end and read
 * them.
 *
 * The only room that calls the others in order, and none calls it. It refuses to copy, save or
 * write anything itself: it makes what the others need, starts their threads, arms, and takes all
 * of it away. What its files offer each other is below.
 */
#ifndef LDFS_LIFE_H
#define LDFS_LIFE_H

#include "fault/fault.h"
#include "saving/saving.h"

#define GRANULE_MOST (64ULL << 20)

/* ------------------------------------------------------------------ sizes.c */

/* Mappings that protections may cost, the process's own and a margin left out. At least 2. */
uint64_t ldfs_life_map_room(void);

/* ------------------------------------------------------------------- make.c */

/* The struct. NULL: no memory. */
ldfs_dump *ldfs_life_new(ldfs_arena *a, const ldfs_dump_config *c, uint64_t granule);
int ldfs_life_make_granules(ldfs_dump *d);
/* Mark the granules that have no hole now: only those may be read through a view by the handler. */
int ldfs_life_find_full(ldfs_dump *d);
/* The struct and all that it holds; threads have ended. */
void ldfs_life_free(ldfs_dump *d);

/* ------------------------------------------------------------------- crew.c */
int ldfs_life_start_threads(ldfs_dump *d);
void ldfs_life_join_threads(ldfs_dump *d);

/* ------------------------------------------------------------------ start.c */

/* Without its dump a read-only page would fault for ever: so it is unlinked only when none is left.
 */
void ldfs_life_disarm(ldfs_dump *d);

/* ------------------------------------------------------------- reference.c */

/* In the pause. 0 also where none is set, or -errno. */
int ldfs_reference_copy(ldfs_dump *d);

/* ---------------------------------------------------------------- release.c */

/* Of a released dump whose threads end: wait for them, and free it. 0. */
int ldfs_life_end(ldfs_dump *d);

#endif
