/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/*
 * livedump_ioctl.h - the ioctl interface of <mount>/livedump, for C programs.
 *
 * START, SWEEP, INIT and RELEASE have the numbers and arguments of the Live Dump kernel patches,
 * and work on a descriptor that was opened read-only. The typed forms add what those cannot
 * express. They carry their payload by value, so they also work where the host may not read the
 * caller's memory.
 *
 * Errors, for every command: EINVAL: wrong order, or a value out of range; EBUSY: a dump exists
 * already, or another step is in progress; EACCES: the caller may not control this host; ENOTTY: no
 * such command. The file control/error has one sentence about the last error. docs/control.md
 * describes each command.
 *
 * All structs have the same layout on every 64-bit and 32-bit ABI: fixed-width members, naturally
 * aligned, no holes. The byte order is that of the machine. A host of another version returns
 * EPROTO.
 */
#ifndef LIVEDUMP_IOCTL_H
#define LIVEDUMP_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define LIVEDUMP_ABI_VERSION 1
#define LIVEDUMP_PATH_MAX 4096 /* bytes, the NUL included */

/* The commands of the kernel patches. */
#define LIVEDUMP_IOC_START _IO(0xff, 0x01)
/* Returns when the dump is finished and sealed. */
#define LIVEDUMP_IOC_SWEEP _IO(0xff, 0x02)
/* Argument: pointer to the NUL-terminated path of the target; 0: the one in control/output. */
#define LIVEDUMP_IOC_INIT _IO(0xff, 0x64)
/* Also called UNINIT. Allowed in every state. */
#define LIVEDUMP_IOC_RELEASE _IO(0xff, 0x65)

/* States of a dump; the same numbers as in control/state. */
#define LIVEDUMP_STATE_UNDEFINED 0 /* no dump since the host started */
#define LIVEDUMP_STATE_INIT 1
#define LIVEDUMP_STATE_START 2
#define LIVEDUMP_STATE_SWEEP 3
#define LIVEDUMP_STATE_FINISH 4
#define LIVEDUMP_STATE_UNINIT 5 /* released */

/* In everything below 0 means: as set in control/. */
#define LIVEDUMP_POLICY_BLOCK 1
#define LIVEDUMP_POLICY_FAIL 2
#define LIVEDUMP_POLICY_SPILL 3

#define LIVEDUMP_FORMAT_ELF 1
#define LIVEDUMP_FORMAT_RAW 2
#define LIVEDUMP_FORMAT_KDUMP 3

/* Format kdump: how pages are compressed. */
#define LIVEDUMP_COMPRESSION_ZSTD 1
#define LIVEDUMP_COMPRESSION_ZLIB 2
#define LIVEDUMP_COMPRESSION_LZO 3
#define LIVEDUMP_COMPRESSION_SNAPPY 4
#define LIVEDUMP_COMPRESSION_NONE 5

/* Format raw: where the granule table is written. */
#define LIVEDUMP_TABLE_SIDECAR 1
#define LIVEDUMP_TABLE_TAIL 2 /* behind the memory, on the target */

#define LIVEDUMP_ARMING_SWAP 1
#define LIVEDUMP_ARMING_MPROTECT 2

/* What notices a store. 0 in INIT, when control/backend is default: what the machine has. */
#define LIVEDUMP_BACKEND_SIGSEGV 1
#define LIVEDUMP_BACKEND_UFFD 2   /* userfaultfd: stores of the kernel too */
#define LIVEDUMP_BACKEND_SIGBUS 3 /* userfaultfd, and a signal to the thread that stores */
#define LIVEDUMP_BACKEND_AUTO 4   /* SIGSEGV or SIGBUS; only in INIT, STATUS says which it is */

#define LIVEDUMP_POOL_AUTO (~(__u64)0) /* follows need, and the memory that is free */

#define LIVEDUMP_AT_LIMIT_LOSE 1
#define LIVEDUMP_AT_LIMIT_HOLD 2

#define LIVEDUMP_INIT_RELEASE_ON_CLOSE 0x1 /* RELEASE when this open file is closed */
#define LIVEDUMP_INIT_FORCE 0x2            /* overwrite a file system, or a file that is no dump */
#define LIVEDUMP_INIT_NO_TARGET 0x4        /* memory only; `path` must be empty */
/* Write through the page cache, even where O_DIRECT works. */
#define LIVEDUMP_INIT_BUFFERED 0x8

struct livedump_init {
	__u32 version; /* LIVEDUMP_ABI_VERSION */
	__u32 flags;   /* LIVEDUMP_INIT_*, others must be 0 */
	__u32 policy;
	__u32 format;
	__u32 arming;
	__u32 backend;           /* 0 in older programs, which do not have it */
	__u64 granule_size;      /* bytes, power of two */
	__u64 pool_size;         /* bytes, or LIVEDUMP_POOL_AUTO */
	__u64 spill_limit;       /* bytes */
	__u64 sweep_rate;        /* bytes a second */
	__u64 stall_deadline_ns; /* longest wait of a vCPU for a free slot */
	/* From here to `path`: 0 in older programs, which do not have these members. */
	__u32 compression; /* kdump only, also the next two */
	__u32 level;
	__u32 threads;    /* number of threads that compress and write */
	__u32 table;      /* raw only */
	__u64 max_age_ns; /* the host releases a dump on which no step is taken for so long */
	__u32 at_limit;   /* without a target, when the pool cannot grow */
	__u32 reserved;   /* must be 0 */
	char path[LIVEDUMP_PATH_MAX];    /* empty: as set in control/output */
	char sidecar[LIVEDUMP_PATH_MAX]; /* empty: as set in control/sidecar */
};
#define LIVEDUMP_IOC_INIT_TYPED _IOW(0xff, 0x66, struct livedump_init)

#define LIVEDUMP_VERDICT_NONE 0 /* not known yet: not sealed; without a target, not released */
#define LIVEDUMP_VERDICT_CONSISTENT 1
#define LIVEDUMP_VERDICT_TORN 2
#define LIVEDUMP_VERDICT_INCOMPLETE 3

/* Why there is no dump any more (`ended`). */
#define LIVEDUMP_ENDED_NOT 0     /* there is a dump, or there never was one */
#define LIVEDUMP_ENDED_RELEASE 1 /* a RELEASE */
#define LIVEDUMP_ENDED_AGE 2     /* the host released it: it was older than its maximum age */

#define LIVEDUMP_NO_PFN (~0ULL)

/* Steps of a dump at which something can fail. */
#define LIVEDUMP_OPERATION_NONE 0
#define LIVEDUMP_OPERATION_WRITE_DATA 1
#define LIVEDUMP_OPERATION_ZERO_DATA 2 /* writing zeros where the arena has a hole */
#define LIVEDUMP_OPERATION_READ_ARENA 3
#define LIVEDUMP_OPERATION_WRITE_TABLE 4
#define LIVEDUMP_OPERATION_SYNC 5
#define LIVEDUMP_OPERATION_WAIT_SLOT 6 /* the stall deadline passed */
#define LIVEDUMP_OPERATION_PROTECT 7
#define LIVEDUMP_OPERATION_HANDLER 8 /* another SIGSEGV handler is over ours */

struct livedump_failure {
	__u32 operation; /* LIVEDUMP_OPERATION_* */
	__s32 error;     /* positive errno, 0: none */
	__u64 pfn;       /* first page concerned, or LIVEDUMP_NO_PFN */
};

/*
 * Status of the current dump, or of the last one. Counts are of granules unless the comment says
 * otherwise.
 */
struct livedump_status {
	__u32 version;
	__u32 state;   /* LIVEDUMP_STATE_* */
	__u32 verdict; /* LIVEDUMP_VERDICT_*, final; see so_far */
	__u32 policy;  /* LIVEDUMP_POLICY_*; here and below: of this dump, never 0 */
	__u32 format;
	__u32 arming;
	__u64 bytes_total;  /* of the arena */
	__u64 bytes_done;   /* of those, saved or found to be holes; lost bytes do not count */
	__u64 granule_size; /* bytes */
	__u64 granules;
	__u64 remaining; /* not in a final state */
	__u64 by_fault;
	__u64 by_sweep;
	__u64 holes;
	__u64 lost;
	__u64 faults; /* write faults */
	__u64 steals;
	__u64 slots_peak;
	__u64 slot_waits;    /* times */
	__u64 bytes_written; /* to the target */
	/*
	 * From the request to stop until all vCPUs have stopped; for arrays, until the program's
	 * own callback returns.
	 */
	__u64 quiesce_ns;
	__u64 arm_ns; /* making the memory read-only */
	/*
	 * From the request to stop until all run again: quiesce, arm, resume, and the rest between
	 * them.
	 */
	__u64 pause_ns;
	__u64 stall_max_ns;    /* longest time in the fault handler */
	__u64 instant_mono_ns; /* the snapshot instant, CLOCK_MONOTONIC; 0: not yet */
	__u64 instant_wall_ns; /* the same, CLOCK_REALTIME since the epoch */
	__u64 sweep_start_ns;  /* CLOCK_MONOTONIC; 0: not yet */
	__u64 drained_ns;      /* CLOCK_MONOTONIC; 0: not yet */
	struct livedump_failure failure;
	/* From here to `target`: 0 from older hosts, which do not know these members. */
	__u32 compression;
	__u32 level; /* 0: the compression's own; so too for the next */
	__u32 threads;
	__u32 table;
	__u64 max_age_ns;  /* 0: none */
	__u64 spill_limit; /* bytes of slots at the most, where the pool grows */
	__u64 target_end;  /* kdump: bytes of the target in use; else 0 */
	__u32 ended;       /* LIVEDUMP_ENDED_* */
	/* LIVEDUMP_BACKEND_* of this dump. 0: from an older host. */
	__u32 backend;
	/* Letting the machine go, in ns. This and the next member: 0 from older hosts. */
	__u64 resume_ns;
	/* The verdict (LIVEDUMP_VERDICT_*) so far, from START on. Torn stays torn. */
	__u32 so_far;
	__u32 slots_most;               /* that the pool had at once, in all */
	char target[LIVEDUMP_PATH_MAX]; /* path as it was given; empty: no target */
};
#define LIVEDUMP_IOC_STATUS _IOR(0xff, 0x67, struct livedump_status)

#define LIVEDUMP_SWEEP_ASYNC 0x1 /* return at once; poll STATUS for LIVEDUMP_STATE_FINISH */

struct livedump_sweep {
	__u32 version; /* LIVEDUMP_ABI_VERSION */
	__u32 flags;   /* LIVEDUMP_SWEEP_*, others must be 0 */
};
#define LIVEDUMP_IOC_SWEEP_TYPED _IOW(0xff, 0x68, struct livedump_sweep)

/*
 * Steps by dump id: for a program that dumps several hosts at one instant, and may send a step
 * twice. docs/control.md, "Many hosts at one instant".
 */

/* Bits of `answer`. */
#define LIVEDUMP_ANSWER_ALREADY 0x1 /* an earlier call took this step; these are its results */
#define LIVEDUMP_ANSWER_PENDING 0x2 /* START at a time that is to come: ask again */

/*
 * INIT_ID: INIT_TYPED under a dump id. With the id of a dump that there is already, in whatever
 * state, nothing is done, `init` is not looked at, and the answer is ALREADY. ESTALE: the dump with
 * that id was released; EINPROGRESS: its INIT is under way: ask again.
 */
struct livedump_init_id {
	struct livedump_init init;
	__u8 dump_id[16]; /* zeros: the host chooses one. Out: the dump's id */
	__u32 answer;     /* out: LIVEDUMP_ANSWER_ALREADY or 0 */
	__u32 reserved;   /* must be 0 */
	/*
	 * One of control/bases: leave out what did not change since the START of that dump, where
	 * that is known; `target` is a pipe. Zeros, as from older programs: leave nothing out.
	 */
	__u8 since[16];
	__u64 options[10]; /* must be 0; for options that are to come */
};
#define LIVEDUMP_IOC_INIT_ID _IOWR(0xff, 0x69, struct livedump_init_id)

#define LIVEDUMP_STEP_ASYNC 0x1 /* START with at_ns: return PENDING at once; ask again */

#define LIVEDUMP_HOLD_MOST_NS 60000000000ULL   /* hold_ns at the most */
#define LIVEDUMP_AHEAD_MOST_NS 600000000000ULL /* at_ns from now, at the most */
#define LIVEDUMP_LATE_NS 100000000ULL          /* late_ns, where that is 0 */

/*
 * START_TYPED, HOLD, ARM and GO: what is asked, and what is answered. Each is idempotent: a step
 * that was taken already, by whatever call, is answered with ALREADY and the same times.
 *
 * HOLD, in state INIT: stop the machine, and return. It stands until GO, until RELEASE, or until
 * hold_ns have passed, whichever comes first; then it runs, whatever has become of the client.
 * ARM: while it is held: the snapshot instant. The machine still stands; the state is START.
 * GO: let it run. 0: it stood all the time from HOLD until now.
 *
 * Errors besides those of START: ESTALE: dump_id is not that of the dump; EINPROGRESS: this step is
 * under way; EOPNOTSUPP: HOLD is not possible with this machine; ETIMEDOUT of ARM and GO: the
 * deadline let the machine go before; what ARM took stays a dump of this host alone. ETIME: at_ns
 * has passed for more than late_ns; ERANGE: at_ns or hold_ns is too much.
 */
struct livedump_instant {
	__u32 version;    /* LIVEDUMP_ABI_VERSION */
	__u32 flags;      /* LIVEDUMP_STEP_*, others must be 0 */
	__u8 dump_id[16]; /* of the dump that is meant; zeros: whatever dump there is. Out: its id
			   */
	__u64 at_ns;      /* START: take it at this CLOCK_REALTIME; 0: now. Others: 0 */
	__u64 late_ns;    /* START with at_ns: how much later it may begin; 0: LIVEDUMP_LATE_NS */
	__u64 hold_ns; /* HOLD: 1 to LIVEDUMP_HOLD_MOST_NS, from when the machine stands. Others: 0
			*/
	/* Out. Times are ns; 0: not yet. Those of CLOCK_REALTIME are since the epoch. */
	__u32 answer;          /* LIVEDUMP_ANSWER_* */
	__u32 reserved;        /* must be 0 */
	__u64 instant_mono_ns; /* the snapshot instant, CLOCK_MONOTONIC */
	__u64 instant_wall_ns; /* the same, CLOCK_REALTIME */
	__u64 pause_ns;        /* from the request to stop until all run again; as in STATUS */
	__u64 stood_mono_ns;   /* HOLD: the machine stands from here */
	__u64 stood_wall_ns;
	__u64 ran_mono_ns; /* it runs again from here at the latest */
	__u64 ran_wall_ns;
};
#define LIVEDUMP_IOC_START_TYPED _IOWR(0xff, 0x6a, struct livedump_instant)
#define LIVEDUMP_IOC_HOLD _IOWR(0xff, 0x6b, struct livedump_instant)
#define LIVEDUMP_IOC_ARM _IOWR(0xff, 0x6c, struct livedump_instant)
#define LIVEDUMP_IOC_GO _IOWR(0xff, 0x6d, struct livedump_instant)

/*
 * SWEEP_ID: begin to save the rest, and return: ask STATUS_ID for its end.
 * RELEASE_ID: RELEASE of that dump, and of no other. ALREADY: it was released. EINPROGRESS: its
 * INIT is under way. Of struct livedump_instant only version, dump_id and answer are used.
 */
#define LIVEDUMP_IOC_SWEEP_ID _IOWR(0xff, 0x6e, struct livedump_instant)
#define LIVEDUMP_IOC_RELEASE_ID _IOWR(0xff, 0x6f, struct livedump_instant)

/* STATUS_ID: STATUS of that dump, also after its RELEASE, until the next INIT. ESTALE: another. */
struct livedump_status_id {
	struct livedump_status status; /* out; in: version */
	__u8 dump_id[16];              /* zeros: whatever dump there is. Out: its id */
};
#define LIVEDUMP_IOC_STATUS_ID _IOWR(0xff, 0x70, struct livedump_status_id)

#endif /* LIVEDUMP_IOCTL_H */
