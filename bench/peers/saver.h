/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * saver.h - what the ways that handle faults in user space share, except for way "ours": a state
 * for each page, and memory for the old bytes of every page, so that no fault waits for the target.
 *
 * [signal]: may be called in a signal handler.
 */
#ifndef BENCH_SAVER_H
#define BENCH_SAVER_H

#include "peer.h"

/*
 * [signal] A function that makes the pages [first, first + count) writable again, and wakes the
 * threads that wait for them. 0 or -errno.
 */
typedef int (*open_pages)(struct bench *b, uint64_t first, uint64_t count);

int saver_make(struct bench *b);
void saver_arm(struct bench *b);
/*
 * [signal] Save one page unless it is saved already. False: another thread has claimed it, and
 * makes it writable when it has saved it.
 */
bool saver_save(struct bench *b, uint64_t page);
/* [signal] The same, but wait until the page is saved, by this thread or another one. */
void saver_save_or_wait(struct bench *b, uint64_t page);
int saver_sweep(struct bench *b, open_pages open);
void saver_note(struct bench *b, uint64_t since_ns); /* [signal] */

#endif
