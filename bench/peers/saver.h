/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * saver.h - what the ways in user space share that are not ours: a state for each page, and room
 * for the old bytes of every page, so that no fault waits for the target. [signal] marks what a
 * handler may call.
 */
#ifndef BENCH_SAVER_H
#define BENCH_SAVER_H

#include "peer.h"

/* Make pages [first, first + count) writable again, and wake the threads that wait for them.
 * [signal] 0 or -errno. */
typedef int (*open_pages)(struct bench *b, uint64_t first, uint64_t count);

int saver_make(struct bench *b);
void saver_arm(struct bench *b);
/* [signal] Save one page unless it is saved. False: another thread is writing it to the target, and
 * will make it writable. */
bool saver_save(struct bench *b, uint64_t page);
/* Return when the page is saved, by this thread or another one. [signal] */
void saver_save_or_wait(struct bench *b, uint64_t page);
int saver_sweep(struct bench *b, open_pages open);
void saver_note(struct bench *b, uint64_t since_ns); /* [signal] */

#endif
