/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fault.h - what happens before a store to an armed granule may go on, whichever way it comes: our
 * SIGSEGV handler, the userfaultfd monitor, or a call (ldfs_arena_writable, ldfs_arena_discard).
 *
 * It saves bytes into slots and opens granules by the steps of state/. It refuses to write to a
 * target, to wait for anything but a slot or another thread's copy, and to know when a dump begins.
 */
#ifndef LDFS_FAULT_H
#define LDFS_FAULT_H

#include "state/state.h"

/* ----------------------------------------------------------- setup.c, seats.c */

/* Serve faults in the live view of that arena; the first one installs the handler. 0 or -errno. */
int ldfs_fault_register(ldfs_arena *a);
void ldfs_fault_unregister(ldfs_arena *a);
/* Count the caller in and out, as a handler does itself: START and RELEASE wait for it. */
void ldfs_fault_enter(ldfs_arena *a);
void ldfs_fault_leave(ldfs_arena *a);
/* How many are counted in, handlers and callers. */
uint32_t ldfs_fault_inside(const ldfs_arena *a);
/* Faults that were passed on to another handler. */
extern _Atomic uint64_t ldfs_fault_chained;

/* -------------------------------------------------------------- monitor.c */

/* Make userfaultfd and its monitor unless they are there. `given`: /dev/userfaultfd, or -1. */
int ldfs_monitor_start(ldfs_arena *a, int given);
/* At the arena's end. */
void ldfs_monitor_stop(ldfs_arena *a);

/* ---------------------------------------------------------------- guard.c */

void *ldfs_guard_main(void *dump); /* thread */

#endif
