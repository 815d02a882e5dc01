/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shim.h - the protocol between host and shim: messages of a SOCK_SEQPACKET connection, which the
 * shim makes to a socket where the host listens. Both sides are built from one tree; HELLO compares
 * the versions.
 *
 * A request is a header followed by `size` bytes; so is an answer, and answers come in the order of
 * the requests. There can be any number of connections: CONNECT passes the descriptor of another
 * one, whose requests are served at the same time. Integers have the byte order of the machine.
 */
#ifndef LDFS_SHIM_H
#define LDFS_SHIM_H

#include <stdint.h>

/*
 * Environment variables of the process that the host starts. It may execute other programs (a
 * shell, env, taskset) before it becomes the one to be dumped: see begin.c.
 */
#define LDFS_SHIM_SOCKET "LIVEDUMP_SHIM_SOCKET" /* path of the socket where the host listens */
#define LDFS_SHIM_WORD "LIVEDUMP_SHIM_WORD"     /* an argument of that process, to know it by */
/* File name of the program, if the host knows that it is QEMU; unset: one of QEMU's usual names. */
#define LDFS_SHIM_PROGRAM "LIVEDUMP_SHIM_PROGRAM"
/*
 * Path of the socket of QEMU's monitor, where the shim may let the machine run if the host ends
 * before it has. Unset: the user wants the machine stopped (-S).
 */
#define LDFS_SHIM_MONITOR "LIVEDUMP_SHIM_MONITOR"

/* cffi: begin */

#define LDFS_SHIM_VERSION 7
#define LDFS_SHIM_PAYLOAD 135168 /* most bytes behind a header: a READ of 128 KiB */
#define LDFS_SHIM_FDS 4
#define LDFS_SHIM_WORDS 256    /* most bytes of last words */
#define LDFS_SHIM_THREADS 4096 /* most thread ids of a LAST_WORDS */

/* Requests. `arg`, payload and descriptors (`fds`) are in the order given here. */
enum ldfs_shim_op {
	LDFS_SHIM_HELLO = 1,   /* arg: version. -EPROTO: the shim has another one. */
	LDFS_SHIM_CONNECT = 2, /* fds: [socket] */
	LDFS_SHIM_ADOPT = 3,   /* arg: address, size in bytes. fds: [memfd]. Once. */
	/*
	 * Payload: ldfs_dump_config, then its extents. arg[0] has a bit for each descriptor in fds,
	 * in this order: 1 target, 2 table, 4 /dev/userfaultfd, 8 reference (for tests). Bit 16:
	 * the target is a pipe, and the header of its flattened file was written. The answer has
	 * the number of the dump, which all requests below carry.
	 */
	LDFS_SHIM_INIT = 4,
	/* The machine is stopped. -ETIMEDOUT: it is not, because the last words were written. */
	LDFS_SHIM_START = 5,
	LDFS_SHIM_SWEEP = 6,
	LDFS_SHIM_WAIT = 7, /* arg: nanoseconds, at most 100 ms */
	LDFS_SHIM_RELEASE = 8,
	LDFS_SHIM_FREE = 9,      /* 0 also if it has been freed already */
	LDFS_SHIM_COUNTERS = 10, /* answer: ldfs_counters */
	LDFS_SHIM_MARKS = 11,    /* arg: first, count (granules). Answer: ldfs_dump_marks. */
	LDFS_SHIM_READ = 12,     /* arg: offset, length in bytes. Answer: bytes of the snapshot. */
	/*
	 * Payload: what the shim writes to fds [fd] when the host has ended; empty: nothing.
	 * arg[0]: write it also after so many nanoseconds; 0: only at the host's end. arg[1]: so
	 * many thread ids (int32_t) of this process stand behind it in the payload, of threads that
	 * the host may make SCHED_FIFO | SCHED_RESET_ON_FORK: they are lowered before it is
	 * written, and at the next LAST_WORDS.
	 */
	LDFS_SHIM_LAST_WORDS = 13,
	/* arg: offset. Payload: bytes of the file that goes to the pipe; empty: its last record. */
	LDFS_SHIM_RECORD = 14
};

typedef struct ldfs_shim_request {
	uint32_t op;   /* enum ldfs_shim_op */
	uint32_t size; /* bytes of the payload */
	uint64_t dump; /* number of the dump; ignored by requests above INIT and by LAST_WORDS */
	uint64_t arg[2];
} ldfs_shim_request;

typedef struct ldfs_shim_reply {
	int64_t rc;    /* 0 or -errno; -ENODATA: there is no such dump (any more) */
	uint64_t dump; /* INIT: the dump's number, from 1; never used again */
	uint32_t size; /* bytes of the payload */
	uint32_t reserved;
} ldfs_shim_reply;

/* cffi: end */

#endif
