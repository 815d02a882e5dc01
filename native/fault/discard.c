/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * discard.c - what a program announces: that a system call will write some of its memory, or that
 * some is not needed any more and becomes a hole (or zeros). The granules are saved first, as by a
 * store.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fault/within.h"

/*
 * Save the granules of a range that are armed. The caller stays counted in, so that no START arms
 * before ldfs_fault_leave. A START that is at work just now is waited for without being counted in.
 */
static void enter_and_save(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	unsigned turns = 0;
	ldfs_dump *d;

	for (;;) {
		ldfs_fault_enter(a);
		d = load_seq(&a->dump);
		if (!d)
			return;
		if (load_seq(&d->phase) != LDFS_PHASE_READY)
			break;
		ldfs_fault_leave(a);
		ldfs_event_soon(&turns);
	}
	for (uint32_t g = ldfs_granule_of(d, offset); g <= ldfs_granule_of(d, offset + length - 1);
	     g++)
		ldfs_save_make_writable(d, g, false);
}

/*
 * As in our handler: a signal handler of the program that interrupted this thread and
 * stored to a granule that the thread has claimed would wait for that claim for ever.
 */
static void block_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

int ldfs_arena_writable(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	sigset_t before;

	if (ldfs_arena_foreign(a))
		return -ECHILD;
	if (!ldfs_arena_has(a, offset, length))
		return -EINVAL;
	if (length == 0)
		return 0;
	block_signals(&before);
	enter_and_save(a, offset, length);
	/* What writes them may be direct I/O into pages that it has taken long ago. */
	if (load_seq(&a->tracks))
		ldfs_changes_announce(a, offset, length);
	ldfs_fault_leave(a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return 0;
}

/* From now on no granule of the range counts as full, whatever INIT's search has seen of it. */
static void mark_punched(ldfs_dump *d, uint64_t offset, uint64_t length)
{
	for (uint32_t g = ldfs_granule_of(d, offset); g <= ldfs_granule_of(d, offset + length - 1);
	     g++)
		store_seq(&d->full[g], GRANULE_PUNCHED);
}

/*
 * A punch takes userfaultfd's write protection of the shadow's pages with it, so they are protected
 * again. A START that is at work waits for this before it swaps the shadow in, so every page of the
 * shadow is protected then, or shadow_torn makes START fail. While INIT has not begun to protect
 * the shadow there is nothing to do: it protects all of it later.
 */
static int protect_punched(ldfs_arena *a, const ldfs_dump *owner, uint64_t offset, uint64_t length)
{
	int rc;

	if (!ldfs_uffd_protects(owner->backend) || owner->arming != LDFS_ARM_SWAP ||
	    load_seq(&owner->phase) != LDFS_PHASE_READY || !load_seq(&a->shadow_guarded))
		return 0;
	rc = ldfs_uffd_protect(a, a->shadow + offset, length);
	if (rc)
		store_seq(&a->shadow_torn, 1);
	return rc;
}

static int punch(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	ldfs_dump *owner = load_seq(&a->owner); /* not freed while we are counted in */
	int rc;

	if (owner)
		mark_punched(owner, offset, length);
	/* libc's fallocate is a cancellation point: a cancelled thread would stay counted in. */
	rc = syscall(SYS_fallocate, a->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		     (off_t)offset, (off_t)length)
		     ? -errno
		     : 0;
	return !rc && owner ? protect_punched(a, owner, offset, length) : rc;
}

/* As the program stores. Holes are zeros already, and stay holes. */
static void store_zeros(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	uint64_t at = offset, end = offset + length, data, data_end;
	int error = 0;

	while (ldfs_arena_next_data(a, at, end, &data, &data_end, &error)) {
		memset(a->live + data, 0, data_end - data);
		at = data_end;
	}
	if (error)
		memset(a->live + at, 0, end - at);
}

int ldfs_arena_discard(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	sigset_t before;
	int rc = 0;

	if (ldfs_arena_foreign(a))
		return -ECHILD;
	if (!ldfs_arena_has(a, offset, length) || offset % ldfs_page_size() ||
	    length % ldfs_page_size())
		return -EINVAL;
	if (length == 0)
		return 0;
	/*
	 * A hugetlb page that is given back may be another program's when a store needs it again,
	 * and then the store would end this one. So zeros are stored, as the program stores: the
	 * fault path saves what was there, and START does not wait for it.
	 */
	if (a->pages == LDFS_PAGES_2M) {
		memset(a->live + offset, 0, length);
		return 0;
	}
	block_signals(&before);
	enter_and_save(a, offset, length);
	rc = punch(a, offset, length);
	ldfs_fault_leave(a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	/* Sealed by us: a hole takes no mark away, a store does (memory/changes.c). */
	if (rc == -EPERM && load_seq(&a->sealed)) {
		store_zeros(a, offset, length);
		rc = 0;
	}
	return rc;
}
