/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * within.h - the C core inside another process (QEMU), by LD_PRELOAD: serves the host's requests.
 * What its files offer each other; shim.h is what host and shim say to each other.
 *
 * The process must never pay for it: when the host goes, for whatever reason, the dump is released
 * and the memory is as free as before, and a machine that the host held, or had not let run yet,
 * runs. The shim waits on its sockets and does nothing else until it is asked.
 *
 * It calls the functions of ldfs.h, and refuses to know what it runs in: memory, sockets and words
 * come from the host.
 */
#ifndef LDFS_SHIM_WITHIN_H
#define LDFS_SHIM_WITHIN_H

#include "base/base.h"
#include "shim/shim.h"

struct sockaddr_un;

#define SHIM_THREAD "ldfs-shim" /* the name of each of its threads */
#define SHIM_RETRY_US 10000

struct shim_message {
	ldfs_shim_request head;
	uint8_t payload[LDFS_SHIM_PAYLOAD];
	int fds[LDFS_SHIM_FDS]; /* -1: none */
	size_t count;
};

struct shim_answer {
	ldfs_shim_reply head;
	uint8_t payload[LDFS_SHIM_PAYLOAD];
};

/* ---------------------------------------------------------------- message.c */

/* False: the host has gone. */
bool shim_receive(int fd, struct shim_message *m);
bool shim_answer(int fd, struct shim_answer *a);
/* Those that nothing has taken over. */
void shim_close_fds(struct shim_message *m);

/* ------------------------------------------------------------------- dump.c */

/* Requests for a dump that is there. */
int shim_with_dump(const struct shim_message *m, struct shim_answer *out);
/* ADOPT, INIT, FREE. */
int shim_alone(struct shim_message *m, struct shim_answer *out);
/* Nothing of that dump stays protected, whatever it takes. */
void shim_end_dump(uint64_t which);
/* The number of the newest dump. */
uint64_t shim_latest(void);
/* No INIT from now on. One that does not see it has the lock, and is the latest then. */
void shim_no_more_dumps(void);

/* ------------------------------------------------------------------ words.c */

/* Takes the descriptor over when it answers 0. */
int shim_keep_last_words(struct shim_message *m);
/* The fd that they went to, which is then the caller's; -1: there were none. */
int shim_say_last_words(void);
/* They were said while the host lives: the machine runs. */
bool shim_said_too_late(void);
/* Before the first thread: where to say that the machine may run at all. No path: nowhere. */
void shim_set_monitor(const struct sockaddr_un *monitor);
/* To it. The fd, which is the caller's; -1: nobody will listen. */
int shim_say_first_words(void);
/* Read what is said there until its other end closes it. */
void shim_listen_for_ever(int fd);

/* ------------------------------------------------------------------ serve.c */

/* A thread that serves it; it owns the fd when this answers 0. `first`: its end is the host's. */
int shim_serve_connection(int fd, bool first);
/* The host has gone: the machine runs, nothing is protected. */
void shim_give_up(void);

/* ----------------------------------------------------------------- memory.c
 * Memory that the process itself gives back (balloon, free page reporting): fallocate and madvise
 * of this process pass through the shim, and what they discard is saved first.
 */

/* From now on discards of this arena's memory are its own. For good. 0 or -errno. */
int shim_memory_watch(ldfs_arena *a);

#endif
