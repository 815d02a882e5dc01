/* SPDX-License-Identifier: GPL-2.0-or-later */
/* within.h - what the files of fault/ offer each other, and no other room. */
#ifndef LDFS_FAULT_WITHIN_H
#define LDFS_FAULT_WITHIN_H

#include <signal.h>

#include "fault/fault.h"

/* ---------------------------------------------------------------- seats.c
 * The arenas that the handler serves.
 */
struct ldfs_fault_seat {
	_Atomic(ldfs_arena *) arena; /* NULL: free */
	_Atomic uintptr_t start;     /* of the live view */
	_Atomic uintptr_t end;       /* exclusive */
	_Atomic uint32_t handlers;   /* handlers at work on it */
	_Atomic uint32_t callers;    /* in writable or discard, and the userfaultfd monitor */
} __attribute__((aligned(CACHE_LINE)));

extern struct ldfs_fault_seat ldfs_fault_seats[LDFS_MAX_ARENAS];
extern _Atomic uint32_t ldfs_fault_seats_used; /* seats [0, used) may be in use */

/* Fills in a->fault_seat. -ENFILE: LDFS_MAX_ARENAS are there. */
int ldfs_seats_take(ldfs_arena *a);
/* No handler finds the arena from now on, and none is inside when this returns. */
void ldfs_seats_give(ldfs_arena *a);
/* In a forked child. False: it has no memory of its own in the place of one of the arenas. */
bool ldfs_seats_forget(void);

/* Tasks that are in our handler now: they block everything that can be blocked. Callers do not. */
uint32_t ldfs_seats_handlers(void);

/* ---------------------------------------------------------------- chain.c */

/*
 * The handler has three entries, which differ only in the handler to which they pass on a fault
 * that is not ours. Entry 0 is put over what was installed before we were; 1 and 2 are put
 * over a handler that another part of the program installed over ours. A handler that was put over
 * an entry may call that entry: it leads down the chain, never back to its caller.
 */
#define LDFS_ENTRIES 3
#define LDFS_TO_NONE UINT8_MAX
struct ldfs_fault_entry {
	struct sigaction below; /* constant once the entry has been installed */
	uint8_t next;           /* constant too: the entry that `below` was put over, at the most */
	_Atomic uint8_t to;     /* the entry whose `below` gets the fault: this one, as a rule.
				   LDFS_TO_NONE: the default action */
	_Atomic uint8_t spent;  /* `below` has SA_RESETHAND, and was called */
};
/* The chain of SIGSEGV and that of SIGBUS: an entry is the same function in both. */
enum { LDFS_CHAIN_SIGSEGV, LDFS_CHAIN_SIGBUS, LDFS_CHAINS };
extern struct ldfs_fault_entry ldfs_fault_chains[LDFS_CHAINS][LDFS_ENTRIES];

/* [signal] */
static inline struct ldfs_fault_entry *ldfs_fault_chain(int signo)
{
	return ldfs_fault_chains[signo == SIGBUS ? LDFS_CHAIN_SIGBUS : LDFS_CHAIN_SIGSEGV];
}

/* Signals that are blocked while a handler may hold a granule, as the kernel has them. */
extern const uint64_t ldfs_fault_mask;

/* [signal] Set the mask of the calling thread. Returns the mask before. */
uint64_t ldfs_fault_set_mask(uint64_t mask);
/* [signal] To the handler below that entry. `context`: the signal's ucontext_t. */
void ldfs_fault_pass_on(unsigned entry, int signo, siginfo_t *info, void *context);

/* --------------------------------------------------------------- inside.c */
extern void (*const ldfs_fault_entries[LDFS_ENTRIES])(int signo, siginfo_t *info, void *context);
/* What every entry does. */
void ldfs_fault_handler(unsigned entry, int signo, siginfo_t *info, void *context);
/* ldfs_save_make_writable() for a store that faulted: counted, with its time. */
void ldfs_fault_save_for(ldfs_dump *d, uint32_t g);

/* ---------------------------------------------------------------- setup.c */

/*
 * [any thread] Put our handler of that signal back on top. 0: it was there; 1: it was not, and is
 * now; -ENOTCONN: it is not, because no entry is left for the handler found there; other -errno of
 * sigaction.
 */
int ldfs_fault_retake(int signo);

/* ----------------------------------------------------------------- tell.c */

/*
 * [signal] One line on stderr when the fault is that of a forked child without a view of its own
 * (memory/child.c), which is about to die of it.
 */
void ldfs_child_tell(const siginfo_t *info);

/* ------------------------------------------------------- save.c, [signal] */
/* Save granule g and make it writable. `stored`: because of a store; then perhaps some around it,
 * too (fault-around). */
void ldfs_save_make_writable(ldfs_dump *d, uint32_t g, bool stored);

#endif
