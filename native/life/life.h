/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * life.h - making, starting, ending and reading arenas and dumps: the functions of ldfs.h.
 *
 * This directory calls all others, and none of them calls it. It refuses to copy, save or write
 * anything itself: it makes what the others need, starts their threads, arms the memory, and takes
 * all of that down again. Functions that return int return 0 or -errno; all are for the thread that
 * does INIT, START, RELEASE or FREE. None is [signal].
 */
#ifndef LDFS_LIFE_H
#define LDFS_LIFE_H

#include "fault/fault.h"
#include "saving/saving.h"

#define GRANULE_MOST (64ULL << 20)

/* ------------------------------------------------------------------ sizes.c */

/*
 * How many mappings the protection of granules may use: vm.max_map_count without the process's own
 * mappings and a margin. At least 2.
 */
uint64_t ldfs_life_map_room(void);

/* ------------------------------------------------------------------- make.c */

/* Make the struct of a dump. NULL: no memory. */
ldfs_dump *ldfs_life_new(ldfs_arena *a, const ldfs_dump_config *c, uint64_t granule);
int ldfs_life_make_granules(ldfs_dump *d);
/*
 * Mark the granules that have no hole now. Only those may the handler read through a view: reading
 * a hole there would allocate it.
 */
int ldfs_life_find_full(ldfs_dump *d);
/* Free the struct and all that it holds; its threads have ended. */
void ldfs_life_free(ldfs_dump *d);

/* ------------------------------------------------------------------- crew.c */
int ldfs_life_start_threads(ldfs_dump *d);
void ldfs_life_join_threads(ldfs_dump *d);

/* ------------------------------------------------------------------ start.c */

/*
 * Make all memory writable, then unlink the dump from the arena. Not before that: a store to a page
 * that is still read-only would fault for ever without a dump that handles it.
 */
void ldfs_life_disarm(ldfs_dump *d);

/* ------------------------------------------------------------------ track.c */

/*
 * INIT: build the shadow view, where the dump has one, so that it tracks changes if it is to and
 * can; d->tracking says which. A dump that does not track leaves no base.
 */
int ldfs_track_prepare(ldfs_dump *d, const ldfs_dump_config *c);
/* SWEEP: find out which granules the sweep may leave out; d->since says whether it may at all. */
void ldfs_track_leave_out(ldfs_dump *d);
/* RELEASE of a dump that is drained: it is a base from now on, if it can be one. */
void ldfs_track_keep(ldfs_dump *d);
/* There is no base any more. */
void ldfs_track_forget(ldfs_arena *a);

/* ------------------------------------------------------------- reference.c */

/* During the pause: copy the arena to the reference file, without holes. 0 also if there is none.
 */
int ldfs_reference_copy(ldfs_dump *d);

/* ---------------------------------------------------------------- release.c */

/* Wait for the threads of a released dump, and free it. Returns 0. */
int ldfs_life_end(ldfs_dump *d);

#endif
