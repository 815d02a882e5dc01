/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memory.h - memory that the process itself gives back (balloon, free page reporting): fallocate and madvise
 * of this process pass through the shim, and what they discard is saved first.
 */
#ifndef LDFS_SHIM_MEMORY_H
#define LDFS_SHIM_MEMORY_H

#include "ldfs.h"

/* From now on discards of this arena's memory are its own. For good. */
void shim_memory_watch(ldfs_arena *a);

#endif
