/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ldfs.h - the whole public C interface of the livedumpfs core.
 *
 * This is the only place where the interface is written down: cffi reads the part between the two
 * "cffi" marks of this very file (native/build_native.py).
 *
 * Conventions
 *   - Functions return 0 or a negative errno. They never print and never exit.
 *   - Offsets and lengths are bytes unless a name says pages or granules. Ranges are [start, end),
 *     the end exclusive.
 *   - An arena and its dumps belong to the process that made them. In a forked child every function
 *     that changes one returns -ECHILD; the functions that destroy, release or free do nothing
 *     there and return 0. At the live address a child of fork(2) has a private (copy-on-write)
 *     mapping of the memory: it reads what its parent stores, and its own stores stay its own.
 *   - Times are nanoseconds of CLOCK_MONOTONIC unless a name says wall.
 *   - The first word of each comment says where a function may run:
 *       [signal]      inside the SIGSEGV handler as well
 *       [any thread]  any thread, any number at once
 *       [owner]       one thread at a time per object; the caller serialises
 */
#ifndef LDFS_H
#define LDFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

/* What formats number, whatever the kernel's own pages are (ldfs_page_size). */
#define LDFS_PAGE_SIZE 4096
#define LDFS_MAX_ARENAS 64
#define LDFS_MAX_PACKERS 64

/* ------------------------------------------------------------------ arena */

/* The memory of one machine: a memfd and its views. See docs/architecture.md, "Words". */
typedef struct ldfs_arena ldfs_arena;

/* [any thread] Bytes of a page of this kernel: 4096, or on arm64 16 or 64 KiB. */
uint64_t ldfs_page_size(void);
/*
 * [any thread] Make an arena of `size` bytes, a multiple of ldfs_page_size(), all holes, and
 * install the fault handler when this is the first arena. -EINVAL: size; -ENOMEM; -ENFILE:
 * LDFS_MAX_ARENAS exist; -ENOSYS: the kernel lacks what views need (Linux 5.14).
 */
int ldfs_arena_create(uint64_t size, ldfs_arena **out);
/*
 * What the memory of an arena consists of. THP: small pages that the kernel maps as huge pages
 * where 2 MiB of them lie together (32 MiB with pages of 16 KiB, 512 MiB with those of 64 KiB);
 * protection splits such a mapping only where stores fault, and
 * after RELEASE it is whole again. 2M: hugetlb pages of 2 MiB, all taken from the pool when the
 * arena is made, so that no store can lack one; each is protected and saved as a whole.
 */
enum ldfs_pages { LDFS_PAGES_SMALL = 0, LDFS_PAGES_THP = 1, LDFS_PAGES_2M = 2 };
/*
 * [any thread] The same with other pages (enum ldfs_pages). Errors as above; -EINVAL also: `size`
 * is less than a huge page with THP, or no multiple of 2 MiB with 2M. -EOPNOTSUPP: THP, and the
 * kernel gives no huge page (shmem_enabled, or no memory in one piece); 2M, and the kernel has no
 * such pages. -ENOSPC: the pool of huge pages has too few that are free.
 */
int ldfs_arena_create_of(uint64_t size, uint32_t pages, ldfs_arena **out);
/*
 * [any thread] Make an arena of memory that is mapped already: [live, live + size) is one shared,
 * writable mapping of `memfd` from offset 0 on, which must stay there as long as the arena. `memfd`
 * is duplicated. The memory stays mapped when the arena is destroyed. Errors as above; -EINVAL
 * also: `live` is not page-aligned. Of a hugetlbfs `live` and `size` are multiples of its pages,
 * dumps have granules of whole pages, and are armed in place (LDFS_ARM_MPROTECT).
 */
int ldfs_arena_adopt(void *live, uint64_t size, int memfd, ldfs_arena **out);
/* [owner] Unmap and free. -EBUSY: a dump has not been freed yet; nothing is done then. */
int ldfs_arena_destroy(ldfs_arena *a);
/* [any thread] The live view. Its address never changes while the arena exists. */
void *ldfs_arena_live(const ldfs_arena *a);
/* [any thread] The size in bytes. */
uint64_t ldfs_arena_size(const ldfs_arena *a);
/*
 * [any thread] The least that can be protected, in bytes, and so the least granule: 2 MiB with
 * LDFS_PAGES_2M, otherwise ldfs_page_size().
 */
uint64_t ldfs_arena_page_size(const ldfs_arena *a);
/* [any thread] The memfd itself, for pread; owned by the arena. */
int ldfs_arena_memfd(const ldfs_arena *a);
/* [any thread] Bytes that exist (are not holes), by SEEK_DATA; negative errno on failure. */
int64_t ldfs_arena_resident(const ldfs_arena *a);
/*
 * [any thread] Copy live memory [offset, offset + length) to buf; allocates no page for a hole.
 * -EINVAL: the range is not within the arena.
 */
int ldfs_arena_read(const ldfs_arena *a, uint64_t offset, void *buf, uint64_t length);
/*
 * [any thread] Make [offset, offset + length) writable for system calls: during a dump every armed
 * granule that it touches is saved first, as a store would have done. Holds until the next START.
 * Where the arena tracks, all of it counts as stored to.
 */
int ldfs_arena_writable(ldfs_arena *a, uint64_t offset, uint64_t length);
/*
 * [any thread] Turn the whole pages [offset, offset + length) into holes, or with LDFS_PAGES_2M,
 * and once the arena has tracked, fill them with zeros; during a dump they are saved first.
 * -EINVAL: not aligned to ldfs_page_size().
 */
int ldfs_arena_discard(ldfs_arena *a, uint64_t offset, uint64_t length);

/*
 * [any thread] The dump ids of the bases that the arena has, the newest first, at most `most`; 16
 * bytes each. How many, or -ECHILD. A dump becomes one at its RELEASE if it tracks, is not packed,
 * and all of it went to a stream; all are gone when INIT makes a dump that does not track.
 */
int ldfs_arena_bases(ldfs_arena *a, uint8_t *ids, uint32_t most);

/* ----------------------------------------------------------- fault handler */

/*
 * Our handler serves SIGSEGV from the first arena on, and SIGBUS from the first INIT with backend
 * SIGBUS on, both until the last arena goes. `signo`: one of the two.
 *
 * [any thread] 0 if our handler of that signal is installed, also of SIGBUS before the first such
 * INIT; -ENOTCONN: another one replaced it.
 */
int ldfs_fault_verify(int signo);
/*
 * [any thread] The id of a thread of this process that blocks the signal, 0 if there is none, or
 * -errno.
 */
int ldfs_fault_blocked_task(int signo);
/*
 * [any thread] Both checks, as START with backend SIGSEGV or SIGBUS does them: 0; -ENOTCONN;
 * -EDEADLK: a thread still blocks the signal after a wait.
 */
int ldfs_fault_check(int signo);
/* [any thread] Whether this process may use backend SIGBUS: 0, -EACCES or -ENOSYS, or -errno. */
int ldfs_sigbus_possible(void);

/* ------------------------------------------------------------------ machine */

/*
 * How a dump stops a machine and lets it go. All members may be NULL: then the caller of
 * ldfs_dump_start has stopped the threads that write itself.
 *   quiesce: return 0 once no vCPU runs; -ETIMEDOUT after `deadline_ns` (absolute), with the
 *            machine running again.
 *   capture: keep the registers of the snapshot instant; called between quiesce and resume.
 *   resume:  let all vCPUs go.
 *   patient: not 0 if none of these functions waits for another thread in a loop. Then the thread
 *            that does START runs before all ordinary threads (SCHED_FIFO, where that is allowed)
 *            from quiesce to resume; otherwise only while it arms.
 */
typedef struct ldfs_quiesce_ops {
	int (*quiesce)(void *ctx, uint64_t deadline_ns);
	void (*capture)(void *ctx);
	void (*resume)(void *ctx);
	void *ctx;
	int patient;
} ldfs_quiesce_ops;

/* --------------------------------------------------------------------- dump */

typedef struct ldfs_dump ldfs_dump;

enum ldfs_policy { LDFS_POLICY_BLOCK = 0, LDFS_POLICY_FAIL = 1, LDFS_POLICY_SPILL = 2 };
/*
 * Without a target, when the pool cannot grow: LOSE the granule, or HOLD the storing thread until
 * there is memory, or the dump is released, or stall_deadline_ns has passed.
 */
enum ldfs_at_limit { LDFS_AT_LIMIT_LOSE = 0, LDFS_AT_LIMIT_HOLD = 1 };
/*
 * How memory is armed. SWAP: a view that INIT has prepared takes the place of the live view.
 * MPROTECT: START write-protects the live view itself; the only one with LDFS_PAGES_2M.
 */
enum ldfs_arming { LDFS_ARM_SWAP = 0, LDFS_ARM_MPROTECT = 1 };
/*
 * What notices a store to an armed page. SIGSEGV: mprotect, and our handler on the thread that
 * stores; a system call that writes armed memory fails with EFAULT. UFFD: userfaultfd write
 * protection and a monitor thread; stores of the kernel are noticed, too. SIGBUS: userfaultfd write
 * protection, and our handler on the thread that stores; no right is needed, no mapping is split,
 * and a system call that writes armed memory fails with EFAULT.
 */
enum ldfs_backend {
	LDFS_BACKEND_SIGSEGV = 0,
	LDFS_BACKEND_UFFD = 1,
	LDFS_BACKEND_SIGBUS = 2,
	LDFS_BACKEND_AUTO = 3 /* SIGBUS; SIGSEGV where INIT by SIGBUS fails */
};

/*
 * Granule states: one byte each, changed only by the steps in state/granule.c. See
 * docs/concurrency.md.
 */
enum ldfs_state {
	LDFS_G_ARMED = 0,    /* read-only, not saved */
	LDFS_G_CLAIMED = 1,  /* a handler copies it to a slot */
	LDFS_G_IN_SLOT = 2,  /* published: its bytes are in its slot */
	LDFS_G_SWEEPING = 3, /* I/O of the sweep reads it from memory */
	LDFS_G_STEALING = 4, /* sweep I/O in progress, and a handler copies it to a slot */
	LDFS_G_STOLEN = 5,   /* sweep I/O in progress, and in a slot, which wins */
	LDFS_G_SAVED = 6,    /* final: on the target */
	LDFS_G_HOLE = 7,     /* final: reads as zeros */
	LDFS_G_LOST = 8      /* final: its bytes of the snapshot instant are lost */
};

/* How a granule reached its final state; kept in its table entry. */
enum ldfs_how { LDFS_BY_NONE = 0, LDFS_BY_SWEEP = 1, LDFS_BY_FAULT = 2, LDFS_BY_STEAL = 3 };

/* Bytes [arena_offset, arena_offset + length) of the arena are at target_offset on the target. */
typedef struct ldfs_extent {
	uint64_t arena_offset;
	uint64_t length;
	uint64_t target_offset;
} ldfs_extent;

/* A file that is written to a pipe; see "pages of a kdump file". */
typedef struct ldfs_stream ldfs_stream;

typedef struct ldfs_dump_config {
	/*
	 * Bytes, a power of two, no less than a page of the memory; 0: ldfs_granule_default, or
	 * such a page.
	 */
	uint64_t granule_size;
	uint64_t pool_size; /* bytes of slots made at INIT; at least one granule */
	/* Policy spill or pool_auto: bytes of slots at the most; else ignored. */
	uint64_t spill_limit;
	/* Most bytes per second that the sweep may write, see bytes_written; 0: no limit. */
	uint64_t sweep_rate;
	/* Longest wait of a vCPU for a slot; after it the policy becomes `fail`. */
	uint64_t stall_deadline_ns;
	uint32_t policy; /* enum ldfs_policy */
	/*
	 * Nonzero: under each policy the pool grows ahead of need, up to spill_limit and to half of
	 * the memory that is available, free swap not counted, and gives back what it does not
	 * need.
	 */
	uint32_t pool_auto;
	uint32_t at_limit; /* enum ldfs_at_limit */
	uint32_t arming;   /* enum ldfs_arming */
	uint32_t backend;  /* enum ldfs_backend */
	/* For UFFD: /dev/userfaultfd, opened by a process that is allowed to; -1: open it here. */
	int uffd_fd;
	int target_fd;         /* -1: no target. Duplicated; the caller keeps its own. */
	int target_reads_zero; /* nonzero: what was never written there reads as zeros */
	/* Nonzero: write data past the page cache (O_DIRECT), where that is possible. */
	int target_direct;
	/* Sorted by arena_offset, cover the arena without gap or overlap. Copied by INIT. */
	const ldfs_extent *extents;
	uint32_t extent_count;
	int table_fd;          /* -1: no table on the target. Duplicated. */
	uint64_t table_offset; /* offset of its first block, multiple of 512 */
	uint8_t dump_id[16];   /* goes into every block of the table */
	/*
	 * A packed target (kdump): pages are compressed and appended in the order in which they
	 * come; a descriptor of each page has its offset. An extent's target_offset is then
	 * LDFS_PAGE_SIZE times the number of its first page's descriptor, and extents consist of
	 * whole pages.
	 */
	uint32_t packed;  /* nonzero: packed; the members down to zero_page_offset count */
	uint32_t codec;   /* enum ldfs_codec */
	int level;        /* 0: the codec's default */
	uint32_t threads; /* number of packers, 1 to LDFS_MAX_PACKERS */
	uint64_t descriptors_offset; /* of descriptor 0 on the target; all must read as zeros */
	/* Offset of a page of zeros that was written already; data is appended behind it. */
	uint64_t zero_page_offset;
	/* All writes go there, in whole granules; NULL: to target_fd. Must live as long as the
	 * dump. */
	ldfs_stream *stream;
	/*
	 * Nonzero: keep track of which granules are stored to from START on, if that is possible;
	 * see enum ldfs_tracking. From the first such INIT on the arena's file is sealed, and a
	 * discard fills with zeros.
	 */
	uint32_t track;
	/*
	 * Dump id of a base: the sweep leaves out what did not change since its START, if it can;
	 * see enum ldfs_since. Zeros: none. For a stream that is not packed.
	 */
	uint8_t since[16];
} ldfs_dump_config;

/* Whether a dump keeps track of changes, or why not. */
enum ldfs_tracking {
	LDFS_TRACK_OFF = 0, /* it was not asked to */
	LDFS_TRACK_ON = 1,
	LDFS_TRACK_BACKEND = 2, /* only SIGSEGV does */
	LDFS_TRACK_ARMING = 3,  /* only the swap does */
	LDFS_TRACK_KERNEL = 4,  /* it has no such userfaultfd (Linux 6.7), or we may not use it */
	LDFS_TRACK_MEMORY = 5,  /* there is none for the marks */
	LDFS_TRACK_SHARED = 6,  /* something else has the memory mapped, or its file open */
	LDFS_TRACK_SEAL = 7,    /* the memory's file cannot be sealed against others */
	LDFS_TRACK_UNKNOWN = 8  /* whether others have the memory cannot be known */
};

/* Whether a dump leaves out what is as in the base that it was asked for, or why not. */
enum ldfs_since {
	LDFS_SINCE_NONE = 0, /* it was not asked to, or is not swept yet */
	LDFS_SINCE_COUNTS = 1,
	LDFS_SINCE_UNKNOWN = 2,     /* the arena has no such base (any more) */
	LDFS_SINCE_GRANULE = 3,     /* the base has another granule */
	LDFS_SINCE_NOT_TRACKED = 4, /* this dump does not track; see `tracking` */
	LDFS_SINCE_TARGET = 5,      /* its target needs all of the memory */
	LDFS_SINCE_MEMORY = 6       /* there is none for it */
};

/* Steps of a dump at which I/O can fail; for messages. */
enum ldfs_operation {
	LDFS_OP_NONE = 0,
	LDFS_OP_WRITE_DATA = 1, /* write of granules, as they are or packed */
	LDFS_OP_ZERO_DATA = 2,  /* writing zeros where the arena has a hole */
	LDFS_OP_READ_ARENA = 3, /* pread or SEEK_DATA of the memfd */
	LDFS_OP_WRITE_TABLE = 4,
	LDFS_OP_SYNC = 5,
	LDFS_OP_WAIT_SLOT = 6, /* the stall deadline passed */
	LDFS_OP_PROTECT = 7,   /* mprotect gave something other than ENOMEM */
	LDFS_OP_HANDLER = 8    /* another SIGSEGV handler is over ours, and ours cannot go back */
};

/* The first error of a dump. error 0: none. */
typedef struct ldfs_failure {
	uint32_t operation; /* enum ldfs_operation */
	int32_t error;      /* positive errno */
	uint64_t pfn;       /* first page concerned; UINT64_MAX: none */
} ldfs_failure;

#define LDFS_HISTOGRAM_BINS 40
#define LDFS_COUNTERS_VERSION 1

/* All counts are of granules unless the comment says otherwise. */
typedef struct ldfs_counters {
	uint64_t granule_size; /* bytes */
	uint64_t granules;     /* granules of the arena */
	uint64_t faults;       /* stores that were caught in the arena while a dump was armed */
	uint64_t steals;       /* granules stolen from sweep I/O in progress */
	uint64_t by_fault;     /* final, saved by the fault path (steals included) */
	uint64_t by_sweep;     /* final, saved by the sweep */
	uint64_t holes;        /* final, holes, and what the sweep found all zeros */
	uint64_t lost;         /* final, lost */
	uint64_t remaining;    /* not in a final state */
	uint64_t widened;      /* granules saved early because mprotect met ENOMEM */
	uint64_t slots;        /* slots that exist now */
	uint64_t slots_peak;   /* most in use at once */
	uint64_t slots_most;   /* most that were there at once */
	uint64_t helpers_most; /* helpers of writer and sweep that were called at once */
	uint64_t slot_waits;   /* times that a vCPU found no free slot and waited */
	uint64_t slot_wait_ns; /* sum of those waits */
	uint64_t spilled;      /* slots added by `spill` */
	/*
	 * Bytes written to the target: data (as packed, if it is) and zeros that had to be written;
	 * not headers, table and descriptors.
	 */
	uint64_t bytes_written;
	uint64_t bytes_pool;   /* of those, from slots */
	uint64_t target_end;   /* packed target: first byte behind all data; else 0 */
	uint64_t stall_max_ns; /* longest time in the handler */
	uint64_t handler_ns[LDFS_HISTOGRAM_BINS]; /* [i]: faults that took [2^i, 2^(i+1)) ns */
	uint64_t handler_sum_ns;                  /* sum of the times in the handler */
	/* From the request until all vCPUs are parked, or until a program's callback returns. */
	uint64_t quiesce_ns;
	uint64_t arm_ns;    /* the swap, or mprotect */
	uint64_t resume_ns; /* resume call */
	/*
	 * From the quiesce request until resume returns: the three above, and what lies between
	 * them.
	 */
	uint64_t pause_ns;
	uint64_t instant_mono_ns; /* the snapshot instant */
	uint64_t instant_wall_ns; /* the same, CLOCK_REALTIME since the epoch */
	uint64_t sweep_start_ns;  /* 0: not yet */
	uint64_t drained_ns;      /* 0: not yet */
	uint64_t gave_up;         /* 1: policy is `fail` since an error or a passed deadline */
	uint64_t abandoned;       /* 1: the target was given up; what was not saved then is lost */
	/* 1: a sync or a write of the table failed; that may have been after `failure`. */
	uint64_t not_durable;
	uint64_t chained; /* SIGSEGVs and SIGBUSes passed on to another handler (whole process) */
	/* How often another handler of the signal was found installed, and ours put back over it.
	 */
	uint64_t retaken;
	uint64_t omitted;  /* final, left out because they are as in the base (see `since`) */
	uint64_t tracking; /* enum ldfs_tracking */
	uint64_t since;    /* enum ldfs_since */
	ldfs_failure failure;
} ldfs_counters;

/* What a dump is doing. These are not the numbers of the control interface (livedump_ioctl.h). */
enum ldfs_phase {
	LDFS_PHASE_READY = 1, /* INIT done */
	LDFS_PHASE_ARMED = 2, /* START done */
	LDFS_PHASE_SWEEPING = 3,
	/* Every granule final, table written, data synced; nothing is protected. */
	LDFS_PHASE_DRAINED = 4,
	LDFS_PHASE_RELEASED = 5
};

/*
 * [any thread] The default granule size in bytes, a power of two: the smallest for which even the
 * protection of every second granule keeps the process below vm.max_map_count, with the mappings it
 * has now.
 */
uint64_t ldfs_granule_default(uint64_t arena_size);

/*
 * [any thread] Whether so many more bytes can be filled with data without the kernel's OOM killer
 * ending a process, as far as the free memory of the machine and of the memory cgroups tells. 0:
 * no; errno is ENOMEM then, or says why it is not known now.
 */
int ldfs_headroom(uint64_t bytes);
/* [any thread] The same, and without anything being moved to swap. */
int ldfs_headroom_ram(uint64_t bytes);

/*
 * [owner] INIT: check the config, allocate pool and table, write the empty table to the target,
 * build the shadow view, start the threads. The machine runs meanwhile. -EBUSY: the arena has a
 * dump (also a released one whose I/O hangs); -EINVAL: config; -ENOMEM; errors of the target;
 * -EPERM: the memfd is sealed against writing, or read-only. With UFFD and SIGBUS: -EACCES: we may
 * not use userfaultfd; -ENOSYS: the kernel's userfaultfd cannot write-protect shared memory (before
 * Linux 5.19), or huge pages of it without fault (before Linux 6.4).
 */
int ldfs_dump_init(ldfs_arena *a, const ldfs_dump_config *config, ldfs_dump **out);
/*
 * [owner] START: check handler and signal masks, stop the machine by `ops` (NULL: already stopped),
 * arm, let it go. `quiesce_ns` is relative. -EINVAL: not READY; -ENOTCONN: another handler of
 * SIGSEGV (SIGBUS) replaced ours; -EDEADLK: a thread blocks that signal; -ETIMEDOUT: the machine
 * did not stop within `quiesce_ns`. A failure leaves the machine running, unarmed, and the dump
 * READY.
 */
int ldfs_dump_start(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns);

/*
 * A START in three steps: HOLD stops the machine, ARM takes the instant, GO lets the machine run. A
 * thread of its own, the holder, is inside ldfs_dump_start_held meanwhile; others ask by these
 * functions. The machine is let go by the holder when the time is over, whatever those do.
 */
typedef struct ldfs_hold ldfs_hold;

enum ldfs_hold_stage {
	LDFS_HOLD_STOPPING = 0,
	LDFS_HOLD_STANDS = 1, /* the machine stands */
	LDFS_HOLD_ARMED = 2,  /* the instant is taken; it still stands */
	LDFS_HOLD_OVER = 3    /* it runs */
};
/* What ended the hold. */
enum ldfs_hold_end {
	LDFS_HOLD_ON = 0, /* nothing yet */
	LDFS_HOLD_GO = 1,
	LDFS_HOLD_EXPIRED = 2, /* the time was over */
	LDFS_HOLD_RELEASED = 3,
	LDFS_HOLD_FAILED = 4, /* a step */
	LDFS_HOLD_GOING = 5   /* GO or EXPIRED: about to be decided */
};

typedef struct ldfs_hold_times {
	uint64_t stood_mono_ns; /* the machine stands from here; 0: not yet */
	uint64_t stood_wall_ns;
	uint64_t ran_mono_ns; /* it runs again; 0: not yet */
	uint64_t ran_wall_ns;
	uint64_t end; /* enum ldfs_hold_end */
} ldfs_hold_times;

/* [any thread] `most_ns`: how long the machine may stand. -ENOMEM. */
int ldfs_hold_make(uint64_t most_ns, ldfs_hold **out);
/* [owner] No thread may use it any more. NULL is allowed. */
void ldfs_hold_free(ldfs_hold *h);
/*
 * [owner] START as ldfs_dump_start, with a gap before it arms, until ldfs_hold_arm, and one after,
 * until ldfs_hold_end, both until the time is over. Errors as there; -ECANCELED: the hold ended
 * before ARM, and the dump is READY still, or was released. RELEASE of the dump does not end the
 * hold. The caller calls ldfs_hold_over after it. `hold` NULL: as ldfs_dump_start.
 */
int ldfs_dump_start_held(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns,
			 ldfs_hold *hold);

/*
 * [owner] The holder's own, for a machine that it stops by other means: it stands; it is armed; it
 * runs again. And for all: nothing more will come.
 */
void ldfs_hold_stands(ldfs_hold *h);
void ldfs_hold_armed(ldfs_hold *h);
void ldfs_hold_runs(ldfs_hold *h);
void ldfs_hold_over(ldfs_hold *h);
/*
 * [owner] Wait in the gap after `stage`: in STANDS for ARM, in ARMED for the end. False: the hold
 * has ended, or the time was over, which ends it.
 */
bool ldfs_hold_wait(ldfs_hold *h, uint32_t stage);

/* [any thread] ARM: ask for it. */
void ldfs_hold_arm(ldfs_hold *h);
/*
 * [any thread] GO: end it. What did end it (enum ldfs_hold_end, not GOING but for a GO of another
 * thread): GO if the machine stood until this call. Only in the stage ARMED or OVER.
 */
uint32_t ldfs_hold_go(ldfs_hold *h);
/* [any thread] RELEASE: end it. */
void ldfs_hold_release(ldfs_hold *h);
/*
 * [any thread] Wait for that stage, or a later one, no longer than `timeout_ns` (relative). The
 * stage then.
 */
int ldfs_hold_await(ldfs_hold *h, uint32_t stage, uint64_t timeout_ns);
/* [any thread] What is known so far. */
void ldfs_hold_look(const ldfs_hold *h, ldfs_hold_times *out);

/*
 * [any thread] Return when CLOCK_REALTIME is `wall_ns` (since the epoch), as exactly as this thread
 * is scheduled; at once when that has passed; earlier where the clock is set back. True: this
 * thread runs before all ordinary threads from now on, and must call ldfs_wall_over when it has
 * done what is to be done at that time.
 */
bool ldfs_wall_wait(uint64_t wall_ns);
void ldfs_wall_over(void);

/*
 * [owner] SWEEP: begin to save the granules that no store has touched; returns at once. -EINVAL:
 * not ARMED, or no target.
 */
int ldfs_dump_sweep(ldfs_dump *d);
/*
 * [any thread] Wait until DRAINED. 0; -ETIMEDOUT after `timeout_ns` (relative; 0: only look);
 * -ECANCELED: released. Whether the dump is good is in the counters (lost, failure).
 */
int ldfs_dump_wait(ldfs_dump *d, uint64_t timeout_ns);
/*
 * [any thread] RELEASE, from every phase: all memory becomes writable, all waiting threads are
 * woken, handlers and readers have left the dump, its threads have ended. 0, or -EINPROGRESS if a
 * thread is still in I/O on the target: the machine is free already, and the rest happens when that
 * I/O ends.
 */
int ldfs_dump_release(ldfs_dump *d);
/* [owner] Free a released dump. -EBUSY: not released, or a thread or reader is still in I/O. */
int ldfs_dump_free(ldfs_dump *d);

/* [any thread] enum ldfs_phase. */
int ldfs_dump_phase(const ldfs_dump *d);
/* [any thread] enum ldfs_backend: never AUTO. */
uint32_t ldfs_dump_backend(const ldfs_dump *d);
/* [any thread] The counters as they are now; while the dump runs they may not add up. */
void ldfs_dump_counters(const ldfs_dump *d, ldfs_counters *out);
/* [any thread] Copy the states of granules [first, first + count), a byte each. -EINVAL: range. */
int ldfs_dump_states(const ldfs_dump *d, uint32_t first, uint32_t count, uint8_t *out);
/*
 * [any thread] The same, for a picture: in bits 0 to 3 of each byte the state, in bits 4 to 7 enum
 * ldfs_how where the granule has been in a slot, else 0. Takes no lock, and no other thread waits
 * for it. -EINVAL: range.
 */
int ldfs_dump_marks(const ldfs_dump *d, uint32_t first, uint32_t count, uint8_t *out);
/*
 * [any thread] Read the snapshot: bytes [offset, offset + length) of the arena at the snapshot
 * instant. -ENODATA: before START or after RELEASE; -EIO: a granule is lost, or its bytes cannot be
 * read from the target; -EINVAL: range.
 */
int ldfs_dump_read(ldfs_dump *d, uint64_t offset, void *buf, uint64_t length);

/* ------------------------------------------------------------- pages of a kdump file */

/* How a page of a kdump file is compressed; the flag of its descriptor and of the file's header. */
enum ldfs_codec {
	LDFS_CODEC_NONE = 0,
	LDFS_CODEC_ZLIB = 1,
	LDFS_CODEC_LZO = 2,
	LDFS_CODEC_SNAPPY = 4,
	LDFS_CODEC_ZSTD = 0x20
};

/* As in the file, little-endian; page_desc_t of makedumpfile (diskdump_mod.h). */
typedef struct ldfs_page_desc {
	uint64_t offset;     /* file offset of the stored bytes */
	uint32_t size;       /* stored bytes, 1 to LDFS_PAGE_SIZE */
	uint32_t flags;      /* enum ldfs_codec; 0: stored as it is */
	uint64_t page_flags; /* 0 */
} ldfs_page_desc;

/*
 * [any thread] Pack `count` pages into `out`, which has room for as many pages. `level` 0: the
 * codec's default. Offsets in `descs` count from the start of `out`; a page of zeros gets size 0,
 * and nothing is stored for it. Returns the bytes used; -EINVAL: no such codec or level; -ENOMEM.
 */
int64_t ldfs_pages_pack(uint32_t codec, int level, const void *pages, uint32_t count, void *out,
			ldfs_page_desc *descs);
/*
 * [any thread] Read the pages of the `count` descriptors `descs` from the file `fd` into `buf`. The
 * descriptors need not be valid. -EBADMSG: a descriptor, or what it points to, is damaged; -EIO and
 * other errors of pread, -EIO also where the file ends; -ENOMEM.
 */
int ldfs_pages_read(int fd, const ldfs_page_desc *descs, uint32_t count, void *buf);

/*
 * [any thread] Begin a stream on the pipe `fd`: a file in the flattened format of makedumpfile,
 * records of offset, length and bytes. `fd` stays the caller's: it is opened anew through /proc, or
 * else duplicated and made nonblocking for all that share it. The header of the format is written
 * with the first record, unless `begun` says that it was written already; from then on no other
 * writer may use the pipe. -ENOMEM, -EMFILE, other errors of open.
 */
int ldfs_stream_open(int fd, int begun, ldfs_stream **out);
/*
 * [any thread] Write one record: `length` bytes for offset `at` of the file. Waits while the pipe
 * is full. -EPIPE: the reader has closed it; -ECANCELED: ldfs_stream_cancel; -EFBIG: offset too
 * large. After an error of the pipe the stream takes nothing more.
 */
int ldfs_stream_write(ldfs_stream *s, const void *buf, uint64_t length, uint64_t at);
/* [any thread] Write the last record, which says that the file is complete. Errors as above. */
int ldfs_stream_end(ldfs_stream *s);
/* [any thread] Calls that wait for the reader end with -ECANCELED in 50 ms, later ones at once. */
void ldfs_stream_cancel(ldfs_stream *s);
/* [owner] Free the stream. */
void ldfs_stream_close(ldfs_stream *s);

/* ------------------------------------------------ the granule table on a target */

/* All integers little-endian. Block i holds the entries of granules [169 i, 169 i + count). */
#define LDFS_TABLE_BLOCK_SIZE 4096
#define LDFS_TABLE_BLOCK_ENTRIES 169
#define LDFS_TABLE_MAGIC "LDFSTAB1"

typedef struct ldfs_table_entry {
	/*
	 * Packed target: the target offset of the first stored byte. Otherwise 0: the layout fixes
	 * it.
	 */
	uint64_t where;
	uint64_t checksum; /* XXH3-64 of the granule's bytes (uncompressed); 0 for holes */
	uint32_t stored;   /* bytes stored; 0 for holes, and for packed pages that are all zeros */
	uint8_t state;     /* enum ldfs_state: ARMED (not saved yet), SAVED, HOLE or LOST */
	uint8_t how;       /* enum ldfs_how */
	uint16_t reserved;
} ldfs_table_entry;

typedef struct ldfs_table_block {
	char magic[8];
	uint8_t dump_id[16];
	uint32_t index;    /* number of this block, from 0 */
	uint32_t count;    /* entries in use, 1 to 169 */
	uint64_t checksum; /* XXH3-64 of the whole block with this field zero */
	ldfs_table_entry entries[169];
} ldfs_table_block;

/* --------------------------------------------------------------- other processes */

/*
 * [any thread] Copy a NUL-terminated string of at most `size` bytes, NUL included, from address
 * `address` of the process that thread `tid` belongs to. -EPERM, -ESRCH, -EFAULT: unreadable;
 * -ENAMETOOLONG: no NUL within `size` bytes.
 */
int ldfs_read_string(int tid, uint64_t address, char *buf, size_t size);

/* ---------------------------------------------------- vCPUs on Unicorn (vcpu/) */

#define LDFS_MAX_VCPUS 4
#define LDFS_CONSOLE_SIZE 65536

/* x86-64 vCPUs, each a thread with a Unicorn instance of its own, all on the same memory. */
typedef struct ldfs_machine ldfs_machine;

/* The guest addresses [start, start + size), whole pages, lie at `ram_offset` of the memory. */
typedef struct ldfs_ram_range {
	uint64_t start;
	uint64_t size;
	uint64_t ram_offset;
} ldfs_ram_range;

/* Linux's user_regs_struct for x86-64: names, order and width. */
typedef struct ldfs_registers {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	uint64_t orig_rax, rip, cs, eflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs;
} ldfs_registers;

/* Linux's user_regs_struct for riscv64, then the supervisor's registers and the privilege level. */
typedef struct ldfs_riscv_registers {
	uint64_t pc, ra, sp, gp, tp, t0, t1, t2, s0, s1, a0, a1, a2, a3, a4, a5, a6, a7;
	uint64_t s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, t3, t4, t5, t6;
	uint64_t sstatus, sie, stvec, sscratch, sepc, scause, stval, sip, satp, priv;
} ldfs_riscv_registers;

/* Of a vCPU of either kind. */
typedef union ldfs_any_registers {
	ldfs_registers x86;
	ldfs_riscv_registers riscv;
} ldfs_any_registers;

enum ldfs_vcpu_state {
	LDFS_VCPU_NEW = 0, /* start not called */
	LDFS_VCPU_RUNNING = 1,
	LDFS_VCPU_IDLE = 2,   /* in hlt, until the next tick (every 1 ms), or in wfi */
	LDFS_VCPU_HALTED = 3, /* in hlt with interrupts off, or switched off: never runs again */
	LDFS_VCPU_FAILED = 4, /* the guest crashed; the rest of the status says how */
	LDFS_VCPU_ENDED = 5   /* stopped by the host */
};

typedef struct ldfs_vcpu_status {
	uint32_t state;    /* enum ldfs_vcpu_state */
	uint32_t parked;   /* 1: a pause holds it outside guest code now */
	int32_t error;     /* FAILED: Unicorn's uc_err; 0: by an exception */
	int32_t exception; /* FAILED: number of the CPU exception, -1: none */
	uint32_t access;   /* FAILED: Unicorn's uc_mem_type of the bad access, 0: none */
	uint32_t reserved;
	uint64_t address; /* FAILED: guest address of the bad access */
	uint64_t pc;      /* FAILED, HALTED: guest address of the instruction */
} ldfs_vcpu_status;

/*
 * [owner] Make a machine of `vcpus` vCPUs on the memory at `ram`, with the libunicorn at the path
 * `library`. `ram` must stay mapped at this address until ldfs_machine_destroy has returned 0.
 * -EINVAL: ranges or count; -ELIBACC: the library cannot be loaded or is not Unicorn 2; -ENOMEM;
 * -EIO: an error of Unicorn. `why` gets a text for the last three, at most `why_size` bytes with
 * its NUL.
 */
int ldfs_machine_create(const char *library, void *ram, const ldfs_ram_range *ranges,
			uint32_t range_count, uint32_t vcpus, ldfs_machine **out, char *why,
			size_t why_size);
/* [owner] Set general registers, rip and eflags of an x86-64 vCPU. -EINVAL: no such vCPU; -EBUSY:
 * started already. */
int ldfs_machine_set_registers(ldfs_machine *m, uint32_t vcpu, const ldfs_registers *registers);
/* [owner] Start the vCPU threads. -EBUSY: started already; errors of pthread_create. */
int ldfs_machine_start(ldfs_machine *m);
/*
 * [owner] End all vCPU threads, parked ones too (without running any more guest code) and wait for
 * them until `deadline_ns` (absolute). -ETIMEDOUT: one still runs, e.g. waits for a dump's slot;
 * call again. May be called in any state and more than once.
 */
int ldfs_machine_stop(ldfs_machine *m, uint64_t deadline_ns);
/* [owner] Free the machine. -EBUSY: a vCPU thread has not been stopped; nothing is done then. */
int ldfs_machine_destroy(ldfs_machine *m);

/* [any thread] The functions for ldfs_dump_start; valid as long as the machine exists. */
ldfs_quiesce_ops *ldfs_machine_ops(ldfs_machine *m);
/*
 * [any thread] Hold every vCPU at an instruction boundary with exact registers, or halted. Calls
 * nest: the machine runs again after as many resumes. -ETIMEDOUT at `deadline_ns` (absolute):
 * undone.
 */
int ldfs_machine_quiesce(ldfs_machine *m, uint64_t deadline_ns);
/* [any thread] Undo one quiesce. -EINVAL: no quiesce is outstanding. */
int ldfs_machine_resume(ldfs_machine *m);
/*
 * [any thread] Live registers: that vCPU is parked for the few microseconds it takes. -EINVAL: no
 * such vCPU; -ETIMEDOUT at `deadline_ns` (absolute).
 */
int ldfs_machine_registers(ldfs_machine *m, uint32_t vcpu, ldfs_any_registers *out,
			   uint64_t deadline_ns);
/*
 * [any thread] The registers that the last capture kept. -EINVAL: no such vCPU; -ENODATA: no
 * capture yet.
 */
int ldfs_machine_snapshot(ldfs_machine *m, uint32_t vcpu, ldfs_any_registers *out);
/*
 * [any thread] Copy the newest console output, oldest byte first, to buf; returns its length. At
 * most LDFS_CONSOLE_SIZE bytes of whole lines and one unfinished line (255 bytes) per vCPU are
 * kept. *end, if `end` is not NULL: bytes that were printed ever, up to the last one in buf.
 */
uint64_t ldfs_machine_console(ldfs_machine *m, uint8_t *buf, uint64_t size, uint64_t *end);
/* [any thread] The state of a vCPU now. -EINVAL: no such vCPU. */
int ldfs_machine_status(ldfs_machine *m, uint32_t vcpu, ldfs_vcpu_status *out);
/* [any thread] Unicorn's text for an error number (uc_err); never freed. */
const char *ldfs_machine_error_text(const ldfs_machine *m, int error);

/* cffi: end */

#endif /* LDFS_H */
