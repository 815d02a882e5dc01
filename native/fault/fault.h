/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fault.h - what happens before a store to an armed granule may go on, whichever way it comes: our
 * handler of SIGSEGV and SIGBUS, the userfaultfd monitor, or a call (ldfs_arena_writable,
 * ldfs_arena_discard).
 *
 * It saves bytes into slots and opens granules by the steps of state/. It refuses to write to a
 * target, to wait for anything but a slot or another thread's copy, and to know when a dump begins.
 */
#ifndef LDFS_FAULT_H
#define LDFS_FAULT_H

#include <signal.h>

#include "state/state.h"

/* ----------------------------------------------------------- setup.c, seats.c */

/*
 * Serve SIGSEGV in the live view of that arena; the first one installs the handler. 0 or -errno.
 */
int ldfs_fault_register(ldfs_arena *a);
/* Serve SIGBUS too, in all arenas and until the last one goes. 0 or -errno. */
int ldfs_fault_serve_sigbus(void);
void ldfs_fault_unregister(ldfs_arena *a);
/* Count the caller in and out, as a handler does itself: START and RELEASE wait for it. */
void ldfs_fault_enter(ldfs_arena *a);
void ldfs_fault_leave(ldfs_arena *a);
/* How many are counted in, handlers and callers. */
uint32_t ldfs_fault_inside(const ldfs_arena *a);
/* [signal] The signal that a store gets under that backend; 0: none, the monitor serves it. */
static inline int ldfs_fault_signal(uint32_t backend)
{
	return backend == LDFS_BACKEND_SIGSEGV  ? SIGSEGV
	       : backend == LDFS_BACKEND_SIGBUS ? SIGBUS
						: 0;
}
/* Faults that were passed on to another handler. */
extern _Atomic uint64_t ldfs_fault_chained;

/* -------------------------------------------------------------- monitor.c */

/*
 * Make the userfaultfd of that backend (UFFD, SIGBUS) and its monitor unless they are there; those
 * of the other backend go. `given`: /dev/userfaultfd, or -1.
 */
int ldfs_monitor_start(ldfs_arena *a, uint32_t backend, int given);
/* Nothing is armed: let go what it has made, so that no view is registered with it. */
void ldfs_monitor_give_up(ldfs_arena *a);
/* At the arena's end. */
void ldfs_monitor_stop(ldfs_arena *a);

/* ---------------------------------------------------------------- guard.c */

void *ldfs_guard_main(void *dump); /* thread */

#endif
