/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shim.h - what host and shim say to each other: messages of a SOCK_SEQPACKET connection, which the
 * shim makes to a socket where the host listens. Both sides are built from one tree; HELLO compares
 * the versions.
 *
 * A request is a header, then `size` bytes; the answer the same, in the order of the requests. Any
 * number of connections: CONNECT passes the fd of another one, which serves its requests beside
 * this one.
 */
#ifndef LDFS_SHIM_H
#define LDFS_SHIM_H

#include <stdint.h>

/*
 * The environment of the process that the host starts. It may start others (a shell, env, taskset)
 * before it is the one that is to be dumped: see begin.c.
 */
#define LDFS_SHIM_SOCKET "LIVEDUMP_SHIM_SOCKET" /* path: where the host listens */
#define LDFS_SHIM_WORD "LIVEDUMP_SHIM_WORD"     /* one of the arguments of that process */
#define LDFS_SHIM_PROGRAM                                                       \
	"LIVEDUMP_SHIM_PROGRAM" /* file name of its program, if it is called so \
				 */
#define LDFS_SHIM_MONITOR \
	"LIVEDUMP_SHIM_MONITOR" /* path: who listens there lets the machine run; or none */

/* cffi: begin */

#define LDFS_SHIM_VERSION 5
#define LDFS_SHIM_PAYLOAD 135168 /* bytes behind a header at the most: a READ of 128 KiB */
#define LDFS_SHIM_FDS 4
#define LDFS_SHIM_WORDS 256 /* bytes of last words at the most */

enum ldfs_shim_op {
	LDFS_SHIM_HELLO = 1,   /* arg: version. Answers -EPROTO when it is another. */
	LDFS_SHIM_CONNECT = 2, /* fds: [socket] */
	LDFS_SHIM_ADOPT = 3,   /* arg: address, size. fds: [memfd]. Once. */
	LDFS_SHIM_INIT = 4,    /* payload: ldfs_dump_config, then its extents. fds by arg[0], a bit
				  each: target 1, table 2, /dev/userfaultfd 4, reference (tests) 8; in
				  this order. 16: the target is a pipe, and its flattened file has
				  begun. Answers the number of the dump, which all below carry */
	LDFS_SHIM_START = 5, /* the machine stands; -ETIMEDOUT: it has not, last words were said */
	LDFS_SHIM_SWEEP = 6,
	LDFS_SHIM_WAIT = 7, /* arg: nanoseconds, 100 ms at the most */
	LDFS_SHIM_RELEASE = 8,
	LDFS_SHIM_FREE = 9,      /* 0 also when it has been freed already */
	LDFS_SHIM_COUNTERS = 10, /* answers ldfs_counters */
	LDFS_SHIM_STATES = 11,   /* arg: first, count. Answers a byte each. */
	LDFS_SHIM_READ = 12,     /* arg: offset, length. Answers bytes of the snapshot. */
	LDFS_SHIM_LAST_WORDS =
		13, /* payload: what to write to fds [fd] when the host has gone; empty: nothing.
		       arg[0]: and when so many nanoseconds have passed; 0: never */
	LDFS_SHIM_RECORD =
		14 /* arg: offset. payload: bytes of the file that a pipe takes; none: its end */
};

typedef struct ldfs_shim_request {
	uint32_t op;   /* enum ldfs_shim_op */
	uint32_t size; /* of the payload, bytes */
	uint64_t dump; /* which; ignored by those above INIT, and by LAST_WORDS */
	uint64_t arg[2];
} ldfs_shim_request;

typedef struct ldfs_shim_reply {
	int64_t rc;    /* 0 or -errno; -ENODATA where there is no such dump (any more) */
	uint64_t dump; /* INIT: its number, from 1; never used again */
	uint32_t size; /* of the payload, bytes */
	uint32_t reserved;
} ldfs_shim_reply;

/* cffi: end */

#endif
