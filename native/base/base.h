/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * base.h - what all other directories build on: sleeping and waking, clocks, threads, complete
 * reads and writes, checksums, and buffers that the machine's bytes may pass through.
 *
 * It refuses to know arenas, dumps and targets. Next to it: atomic.h (atomics named by their memory
 * order), copy.h (a copy that bypasses the cache) and relax.h (for loops that wait). What differs
 * between processors is in these two, in checksum.c and in fault/access.h, and nowhere else.
 *
 * The marks [signal], [any thread] and [owner] in the comments are those of ldfs.h.
 */
#ifndef LDFS_BASE_H
#define LDFS_BASE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/atomic.h"
#include "ldfs.h"

#define CACHE_LINE 64

/* ---------------------------------------------------------------- event.c
 * An event: a futex word that threads sleep on. A waiter calls prepare, which returns `seq`, then
 * looks at its condition, and then calls wait, which sleeps only while `seq` is unchanged. The
 * notifying thread first makes the condition true. Notify is one load when no thread waits.
 * [signal]
 */
struct ldfs_event {
	_Atomic uint32_t seq;
	_Atomic uint32_t waiters;
};

/* Count the caller as a waiter; returns `seq`. Then call wait or cancel, exactly once. */
uint32_t ldfs_event_prepare(struct ldfs_event *e);
/*
 * Sleep until notified or until `deadline_ns` (CLOCK_MONOTONIC; UINT64_MAX: no deadline). May wake
 * without cause. False: the deadline has passed.
 */
bool ldfs_event_wait(struct ldfs_event *e, uint32_t seen, uint64_t deadline_ns);
/* The same of a waiter that ldfs_event_notify_groups reaches, too; `groups`: bits, not 0. */
bool ldfs_event_wait_in(struct ldfs_event *e, uint32_t seen, uint64_t deadline_ns, uint32_t groups);
void ldfs_event_cancel(struct ldfs_event *e); /* instead of wait, if the condition holds already */
void ldfs_event_notify(struct ldfs_event *e);
/*
 * Wake `most` waiters only. For conditions that are gone when so many threads have looked, each of
 * which wakes another if it leaves the condition as it is.
 */
void ldfs_event_notify_some(struct ldfs_event *e, uint32_t most);
void ldfs_event_notify_one(struct ldfs_event *e);
/* Wake all that wait in one of these groups. */
void ldfs_event_notify_groups(struct ldfs_event *e, uint32_t groups);
/*
 * One turn of a loop that waits for something which another thread is about to finish: spins, then
 * yields, then sleeps. *turns counts the turns; the caller sets it to 0 before the first.
 */
void ldfs_event_soon(unsigned *turns);
uint64_t ldfs_now_ns(void);                   /* CLOCK_MONOTONIC */
uint64_t ldfs_deadline(uint64_t relative_ns); /* now + relative, UINT64_MAX on overflow */

/* ----------------------------------------------------------------- wall.c
 * The wall clock, for labels, and for a START at a time that hosts have agreed on.
 */
uint64_t ldfs_wall_ns(void); /* [any thread] CLOCK_REALTIME, since the epoch */

/* --------------------------------------------------------------- urgent.c */

/*
 * [any thread] Make a thread run before all ordinary threads (SCHED_FIFO). `thread` is a thread id,
 * 0 is the caller. False: the thread has another scheduling policy than the ordinary one, or we
 * lack the permission; the caller must not call lower for it then.
 */
bool ldfs_urgent_raise(pid_t thread);
/* [any thread] Undo ldfs_urgent_raise, only after it returned true. */
void ldfs_urgent_lower(pid_t thread);

/* --------------------------------------------------------------- thread.c */

/* [any thread] Start a thread of the core. 0 or -errno. */
int ldfs_thread_start(pthread_t *thread, void *(*main)(void *), void *arg, const char *name);
/* [any thread] The same for a thread that is never joined. */
int ldfs_thread_detached(void *(*main)(void *), void *arg, const char *name);
/* [any thread] Processors that this process may use, at least 1. */
unsigned ldfs_thread_processors(void);

/* ------------------------------------------------------------------- io.c
 * Complete reads and writes of `length` bytes at offset `at`. 0, -errno, or -EIO where the file
 * ends before that. ldfs_read_all is [signal], ldfs_write_all is [any thread] but not [signal].
 */
int ldfs_read_all(int fd, void *buf, uint64_t length, uint64_t at);
int ldfs_write_all(int fd, const void *buf, uint64_t length, uint64_t at);

/* ----------------------------------------------------- checksum.c, checksum_avx2.c
 * XXH3-64 with seed 0 (xxHash). ldfs_checksum_avx2 is there on x86-64 alone, and needs a processor
 * with AVX2. [any thread]
 */
uint64_t ldfs_checksum(const void *bytes, uint64_t length);
uint64_t ldfs_checksum_avx2(const void *bytes, uint64_t length);

/* ----------------------------------------------------------------- zero.c
 * Whether all bytes are 0. `length` is a multiple of the page size, not 0. Stops soon after the
 * first byte that is not 0. [any thread]
 */
bool ldfs_all_zero(const void *bytes, uint64_t length);

/* --------------------------------------------------------------- buffer.c
 * Buffers for copies of the machine's bytes: excluded from core files and from forked children, and
 * returned to the kernel when they are freed.
 */

/* [any thread] `size` bytes of zeros, page-aligned. NULL: no memory. */
void *ldfs_buffer_make(uint64_t size);
/* [any thread] Free a buffer; `size` as it was made. NULL is allowed. */
void ldfs_buffer_free(void *buffer, uint64_t size);

#endif
