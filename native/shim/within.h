/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * within.h - the functions that the files of the shim use from each other. The shim is the C core
 * inside another process (QEMU), loaded with LD_PRELOAD; it serves the host's requests. shim.h
 * describes the protocol between host and shim.
 *
 * The shim must never harm the process. When the host ends, for whatever reason, the dump is
 * released and all memory is writable as before; a machine that the host had stopped, or not yet
 * let run, runs. The shim waits on its sockets and does nothing else until it is asked.
 *
 * It calls the functions of ldfs.h, and refuses to know what process it runs in: memory,
 * sockets and last words come from the host. Functions that return int return 0 or -errno, unless
 * they say otherwise; none is [signal].
 */
#ifndef LDFS_SHIM_WITHIN_H
#define LDFS_SHIM_WITHIN_H

#include "base/base.h"
#include "shim/shim.h"

struct sockaddr_un;

#define SHIM_THREAD "ldfs-shim" /* name of all threads of the shim */
#define SHIM_RETRY_US 10000

struct shim_message {
	ldfs_shim_request head;
	uint8_t payload[LDFS_SHIM_PAYLOAD];
	int fds[LDFS_SHIM_FDS]; /* -1: none; `count` of them were sent */
	size_t count;
};

struct shim_answer {
	ldfs_shim_reply head;
	uint8_t payload[LDFS_SHIM_PAYLOAD];
};

/* ---------------------------------------------------------------- message.c */

/* Receive one request. False: the host has ended, or has closed the connection. */
bool shim_receive(int fd, struct shim_message *m);
bool shim_answer(int fd, struct shim_answer *a);
/* Close the descriptors of a request that no function has taken over (and set to -1). */
void shim_close_fds(struct shim_message *m);

/* ------------------------------------------------------------------- dump.c */

/* Requests that need a dump. */
int shim_with_dump(const struct shim_message *m, struct shim_answer *out);
/* ADOPT, INIT and FREE: requests that change which arena or dump there is, one at a time. */
int shim_alone(struct shim_message *m, struct shim_answer *out);
/* Release and free that dump; repeats it until no memory is protected any more. */
void shim_end_dump(uint64_t which);
/* The number of the newest dump. */
uint64_t shim_latest(void);
/* Refuse INIT from now on. An INIT that misses this holds the lock; its dump is then the latest. */
void shim_no_more_dumps(void);

/* ------------------------------------------------------------------ words.c */

/*
 * Keep the last words (see words.c) of a LAST_WORDS request. Takes its descriptor over if it
 * returns 0.
 */
int shim_keep_last_words(struct shim_message *m);
/*
 * Write the last words now. Returns the descriptor they were written to, which the caller then
 * owns; -1: there were none.
 */
int shim_say_last_words(void);
/* Whether the last words were written although the host has not ended: the machine runs then. */
bool shim_said_too_late(void);
/* Set the monitor's socket, before the shim's first thread starts. An empty path: none. */
void shim_set_monitor(const struct sockaddr_un *monitor);
/*
 * Let a machine run that the host has not let run yet, through the monitor's socket. Returns the
 * descriptor, which the caller owns; -1: not possible.
 */
int shim_say_first_words(void);
/* Read and drop what the other end of `fd` sends, until it closes. */
void shim_listen_for_ever(int fd);

/* ----------------------------------------------------------------- urgent.c */

/*
 * Lower the threads that were kept before, and keep these: `count` thread ids (int32_t, of any
 * alignment), at most LDFS_SHIM_THREADS.
 */
void shim_urgent_keep(const uint8_t *ids, size_t count);
/* Whether that can be done: a seccomp filter may forbid it. */
bool shim_urgent_may_lower(void);
/* Make those of them ordinary again that the host has raised; they stay kept. */
void shim_urgent_lower(void);

/* ------------------------------------------------------------------ serve.c */

/*
 * Start a thread that serves the connection `fd`, and owns fd if this returns 0. `first`: when this
 * connection ends, the host has ended.
 */
int shim_serve_connection(int fd, bool first);
/* To be called when the host has ended: the machine runs, and nothing is protected any more. */
void shim_give_up(void);

/* ----------------------------------------------------------------- memory.c
 * Memory that the process itself gives back to the kernel (balloon, free page reporting). Its calls
 * of fallocate and madvise go through the shim, which saves what they discard first.
 */

/* From now on, save before each discard of this arena's memory. For good. 0 or -errno. */
int shim_memory_watch(ldfs_arena *a);

#endif
