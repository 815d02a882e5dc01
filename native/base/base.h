/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * base.h - what every room stands on: sleeping and waking, clocks, threads, whole reads and writes,
 * checksums, and memory that the machine's bytes may pass through.
 *
 * It refuses to know what an arena, a dump or a target is. Beside it: atomic.h (atomics by their
 * order) and copy.h (a copy that does not go through the cache).
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
 * A word to sleep on: a waiter reads `seq`, looks at its condition, then sleeps while `seq` is
 * unchanged. notify is one load when nothing waits. [signal]
 */
struct ldfs_event {
	_Atomic uint32_t seq;
	_Atomic uint32_t waiters;
};

uint32_t ldfs_event_prepare(struct ldfs_event *e); /* then look at the condition, then: */
/* Sleep until notified or `deadline_ns` (CLOCK_MONOTONIC, UINT64_MAX: none). False: deadline. */
bool ldfs_event_wait(struct ldfs_event *e, uint32_t seen, uint64_t deadline_ns);
void ldfs_event_cancel(struct ldfs_event *e); /* instead of wait, when the condition holds */
void ldfs_event_notify(struct ldfs_event *e);
/* Wake one of the waiters: for a condition that the woken one ends for all. */
void ldfs_event_notify_one(struct ldfs_event *e);
/* Once more round a loop that waits for what another thread is about to finish; *turns is 0 at
 * first. */
void ldfs_event_soon(unsigned *turns);
uint64_t ldfs_now_ns(void);                   /* CLOCK_MONOTONIC */
uint64_t ldfs_deadline(uint64_t relative_ns); /* now + relative, saturating */

/* --------------------------------------------------------------- urgent.c */

/*
 * [any thread] By thread id, 0: the caller. False: it is not an ordinary thread, or we may not;
 * then it must not be lowered.
 */
bool ldfs_urgent_raise(pid_t thread);
/* [any thread] One that was raised. */
void ldfs_urgent_lower(pid_t thread);

/* --------------------------------------------------------------- thread.c */

/* [any thread] Begin a thread of the core; 0 or -errno. */
int ldfs_thread_start(pthread_t *thread, void *(*main)(void *), void *arg, const char *name);
/* [any thread] The same of one that nothing waits for. */
int ldfs_thread_detached(void *(*main)(void *), void *arg, const char *name);

/* ------------------------------------------------------------------- io.c
 * Whole reads and writes at an offset: 0, -errno, or -EIO where the file ends early. [signal]
 */
int ldfs_read_all(int fd, void *buf, uint64_t length, uint64_t at);
int ldfs_write_all(int fd, const void *buf, uint64_t length, uint64_t at);

/* ----------------------------------------------------- checksum.c, checksum_avx2.c
 * XXH3-64. [any thread]
 */
uint64_t ldfs_checksum(const void *bytes, uint64_t length);
uint64_t ldfs_checksum_avx2(const void *bytes, uint64_t length);

/* ----------------------------------------------------------------- zero.c
 * Whether all of whole pages is 0; looks little further than the first byte that is not. [any
 * thread]
 */
bool ldfs_all_zero(const void *bytes, uint64_t length);

/* --------------------------------------------------------------- buffer.c
 * Memory for the machine's bytes outside of its views: in no core file, in no child, gone when it
 * is freed.
 */

/* [any thread] `size` bytes of zeros; NULL: no memory. */
void *ldfs_buffer_make(uint64_t size);
/* [any thread] What ldfs_buffer_make gave, of that size; NULL: nothing to do. */
void ldfs_buffer_free(void *buffer, uint64_t size);

#endif
