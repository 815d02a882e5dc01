/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * state.h - what a dump is: the state of each granule, the slots, and the counts. All that the
 * fault path, the sweep, the writers and the readers share lies here, and they meet nowhere else.
 *
 * What changes a granule's state or its protection, or takes and gives a slot, is a function of
 * this room, without a lock, and may run in the signal handler. It refuses to decide when: it has
 * no thread of its own, writes nothing to a target, and does not know what made a step necessary.
 */
#ifndef LDFS_STATE_H
#define LDFS_STATE_H

#include "base/base.h"
#include "memory/memory.h"
#include "target/target.h"

#define NO_SLOT UINT32_MAX
#define LDFS_KEEPERS_MOST 4
#define GRANULE_FULL 1    /* in ldfs_dump.full; 0: may have holes */
#define GRANULE_PUNCHED 2 /* had a hole made in it during this dump: never full again */

/* ------------------------------------------------------------------ ring.c */
struct ldfs_slot {
	_Atomic uint32_t next; /* in the free or the filled stack: index + 1, 0: end */
	uint32_t granule;      /* whose bytes it holds; writer and owner of the slot */
};

struct ldfs_ring {
	uint8_t *map; /* what is mapped for them, map_size bytes */
	uint64_t map_size;
	uint8_t *bytes; /* addresses of `reserved` slots of slot_size; `made` of them have memory */
	struct ldfs_slot *slots;
	uint64_t slot_size;     /* bytes */
	_Atomic uint32_t made;  /* slots that are there */
	_Atomic uint32_t limit; /* slots at the most */
	_Atomic uint32_t ahead; /* so many are to be free, or a quarter of those in use */
	_Atomic uint64_t most;  /* the highest `made` */
	/* A hint: not each granule can have a slot, by the last look or growth. */
	_Atomic uint32_t short_of;
	uint32_t reserved; /* slots that `bytes` and `slots` have room for */
	uint32_t least;    /* slots that INIT made; they stay */
	bool grows;        /* keepers add slots */
	bool follows;      /* pool auto: as memory and need go, and they give some back */
	_Atomic uint64_t free __attribute__((aligned(CACHE_LINE)));   /* tag << 32 | index + 1 */
	_Atomic uint32_t filled __attribute__((aligned(CACHE_LINE))); /* index + 1 */
	_Atomic uint32_t in_use;
	_Atomic int32_t to_spare; /* a hint: slots freed lately, for fault-around */
	_Atomic uint64_t peak;
	/*
	 * For threads that wait for a slot: one was freed (wakes one), or a granule needs none any
	 * more (wakes its group).
	 */
	struct ldfs_event freed;
	struct ldfs_event
		arrived; /* something is filled, or a sweep I/O ended: for those that write slots */
	struct ldfs_event low; /* for the keeper */
	pthread_t keepers[LDFS_KEEPERS_MOST];
	uint32_t keepers_made;   /* owner */
	pthread_mutex_t keeping; /* of the three below, among keepers */
	uint32_t planned;        /* slots from this number on have never been there */
	uint32_t away;           /* chain by `next` of slots that were given back, index + 1 */
	uint32_t growing;        /* slots that keepers are making */
};

/*
 * It may grow up to `limit` slots; where the process may not have so many addresses, or not lock so
 * much, to fewer, or it stays at `made`. 0 or -errno, and nothing is left then.
 */
int ldfs_ring_init(struct ldfs_ring *r, uint64_t slot_size, uint64_t made, uint64_t limit);
void ldfs_ring_destroy(struct ldfs_ring *r);
uint32_t ldfs_ring_take(struct ldfs_ring *r);            /* [signal] a free slot or NO_SLOT */
void ldfs_ring_give(struct ldfs_ring *r, uint32_t slot); /* [signal] back to the free ones */
/* The same, of one that went to the target. */
void ldfs_ring_freed(struct ldfs_ring *r, uint32_t slot);
void ldfs_ring_put(struct ldfs_ring *r, uint32_t slot); /* [signal] to the filled ones */
uint32_t ldfs_ring_take_filled(struct ldfs_ring *r);    /* chain by `next`, index + 1; 0: none */
bool ldfs_ring_can_grow(const struct ldfs_ring *r);     /* [signal] */
/* [signal] So many slots there should be more than, when `used` are in use. */
uint64_t ldfs_ring_wanted(const struct ldfs_ring *r, uint32_t used);
bool ldfs_ring_has_free(struct ldfs_ring *r); /* [signal] */
/*
 * [signal] Sleep till a slot is free or `granule` needs none, after ldfs_event_prepare of `freed`;
 * see ldfs_event_wait. A thread that was woken for a slot and takes none must call
 * ldfs_ring_pass_on.
 */
bool ldfs_ring_wait(struct ldfs_ring *r, uint32_t granule, uint32_t seen, uint64_t deadline_ns);
void ldfs_ring_pass_on(struct ldfs_ring *r); /* [signal] */
/* [signal] Granules [first, end) are safe or lost: wake the threads that want a slot for one. */
void ldfs_ring_need_none(struct ldfs_ring *r, uint32_t first, uint32_t end);
/* Of the stack of free slots alone: for pool.c. */
void ldfs_ring_push(struct ldfs_ring *r, uint32_t slot);
uint32_t ldfs_ring_pop(struct ldfs_ring *r);

/* ------------------------------------------------------------------ pool.c */
/*
 * Up to `most` slots that are wanted and that no other keeper makes, *count of them: to be handed
 * to ldfs_pool_grow. 0: none.
 */
uint32_t ldfs_pool_plan(struct ldfs_ring *r, uint32_t most, uint32_t *count);
/*
 * Make them, if `allowed`; their pages are there before a handler gets them. 0 or -errno: some of
 * them are not there.
 */
int ldfs_pool_grow(struct ldfs_ring *r, uint32_t link, uint32_t count, bool allowed);
/* Slots that keepers are making now, the caller's among them. */
uint32_t ldfs_pool_growing(struct ldfs_ring *r);
/* The pool grows no more. False: it may, because a keeper is making slots. */
bool ldfs_pool_settle(struct ldfs_ring *r);
/* After slots were given back: let the kernel have their memory where it was part of huge pages. */
void ldfs_pool_split(struct ldfs_ring *r);
/* Give back the memory of up to `most` free slots. Returns of how many; fewer: call it again. */
uint32_t ldfs_pool_shrink(struct ldfs_ring *r, uint32_t most);

static inline uint8_t *ldfs_slot_bytes(const struct ldfs_ring *r, uint32_t slot)
{
	return r->bytes + (uint64_t)slot * r->slot_size;
}

/* ------------------------------------------------- parts that saving/ fills
 * Here for their place in struct ldfs_dump; their functions are in saving/saving.h.
 */

/* The granule table on the target. */
struct ldfs_table {
	int fd;          /* -1: no table on the target */
	uint64_t offset; /* of block 0 */
	uint32_t blocks;
	uint8_t dump_id[16];
	_Atomic uint8_t *dirty; /* one a block */
	_Atomic uint64_t next_flush_ns;
	/* One flush at a time, so that an older block never overwrites a newer one. */
	pthread_mutex_t lock;
};

/*
 * A packed target: where each page went. `size` and `where` of a granule belong to the thread that
 * may take it to its final state - the sweep, and after it the writer of its slot - and to every
 * thread that has seen it SAVED.
 */
struct ldfs_pack {
	bool on;
	uint32_t codec;
	int level;
	uint64_t descriptors; /* offset of descriptor 0 on the target */
	uint64_t zero_page;   /* offset of a page of zeros */
	_Atomic uint64_t end; /* where the next bytes go */
	uint16_t *size;       /* per page of the arena: bytes stored; 0: zeros */
	uint64_t *where;      /* per granule: of its first stored byte */
	uint8_t *noted;       /* per granule, under table.lock: its descriptors are on the target */
};

/* Slots that one thread has taken to write, each in exactly one batch. */
struct ldfs_batch {
	uint32_t *slots; /* room for all there can be */
	uint32_t count;
};

struct ldfs_packer; /* a thread that packs slots, and what the sweep has to save */
struct ldfs_helper; /* a thread that helps writer and sweep */

/* How many helpers work, and what says so: see saving/effort.c. */
struct ldfs_effort {
	_Atomic uint32_t helpers; /* that there are */
	_Atomic uint32_t called;  /* so many of them are to work */
	_Atomic uint32_t most;    /* called at once, since INIT */
	struct ldfs_event change; /* more are called; RELEASE */
	/* Of all threads that save, since INIT: time at work, on a processor, waiting for one. */
	_Atomic uint64_t busy_ns, cpu_ns, queued_ns;
	_Atomic uint64_t due_ns;  /* of the next look */
	_Atomic uint32_t looking; /* 1: a thread does */
	/* Of the thread that looks. */
	uint64_t at_ns, busy_before_ns, cpu_before_ns, queued_before_ns, left_before;
	double rate_before; /* of the look before the last call, granules a nanosecond */
	bool trying;        /* the last look has called one more */
	uint32_t rest;      /* so many looks call none, because the last call was in vain */
};

/* ------------------------------------------------------------------- a dump */
struct ldfs_dump {
	ldfs_arena *arena;
	uint32_t granules;
	uint32_t granule_shift; /* granule size is 1 << shift */
	uint32_t policy;
	uint32_t at_limit;
	uint32_t arming;
	uint32_t backend;
	uint64_t sweep_rate;
	uint64_t stall_deadline_ns;
	int reference_fd; /* tests, see life/reference.h; -1: none */

	/* per granule */
	_Atomic uint8_t *state;
	/* Since START: 0, LDFS_OPENED or LDFS_STORED_TO; never taken back. */
	_Atomic uint8_t *writable;
	/* GRANULE_FULL: no holes, so that reading it through a view allocates nothing. */
	_Atomic uint8_t *full;
	_Atomic uint32_t *slot_of; /* valid in IN_SLOT and STOLEN */
	uint64_t *checksum;        /* written before the step into SAVED, read after it */
	uint8_t *how;              /* the same */
	/*
	 * From SWEEP on: 0, or the final state of a granule that the sweep leaves out, because it
	 * is as in the base; and its checksum. NULL: it leaves none out.
	 */
	uint8_t *same;
	uint64_t *same_sum;
	uint8_t wished[16];       /* dump id of the base; zeros: none */
	uint32_t tracking;        /* enum ldfs_tracking */
	_Atomic uint32_t since;   /* enum ldfs_since */
	_Atomic uint64_t omitted; /* granules that were left out */

	_Atomic int64_t islands; /* stretches of writable granules, see protect.c */
	int64_t islands_most;

	_Atomic uint32_t phase; /* enum ldfs_phase */
	uint8_t *sweep_scratch; /* one granule */
	struct ldfs_batch writer_batch;
	/* Bytes that the sweep has written, without holes: what sweep_rate limits. */
	_Atomic uint64_t swept;
	_Atomic uint64_t sweep_next;  /* first granule that no thread has taken to sweep */
	_Atomic uint32_t gave_up;     /* policy counts as `fail` from now on */
	_Atomic uint32_t abandoned;   /* the target is gone: what is not saved yet is lost */
	_Atomic uint32_t not_durable; /* a sync or the table failed */
	_Atomic uint32_t eio_count;
	_Atomic uint64_t remaining; /* granules not in a final state */
	_Atomic uint32_t readers;
	struct ldfs_event progress; /* final states, phase changes */

	struct ldfs_ring ring;
	struct ldfs_table table;
	struct ldfs_target target;
	struct ldfs_pack pack;
	struct ldfs_packer *packers; /* packed target: they write, and sweep; else NULL */
	uint32_t packer_count;
	uint32_t packers_made; /* owner; threads that were started */
	struct ldfs_effort effort;
	struct ldfs_helper *helpers;
	uint32_t helper_count;
	uint32_t helpers_made; /* owner; threads that were started */

	pthread_t sweep_thread, writer_thread, guard_thread;
	bool sweep_made, writer_made, guard_made; /* owner */
	struct ldfs_event guard_wake;             /* phase changes */
	_Atomic uint32_t threads_running;
	_Atomic uint32_t release_begun, release_done;

	/* counters; see ldfs_counters */
	_Atomic uint64_t faults __attribute__((aligned(CACHE_LINE)));
	_Atomic uint64_t steals, widened, slot_waits, slot_wait_ns, stall_max_ns;
	_Atomic uint64_t handler_ns[LDFS_HISTOGRAM_BINS], handler_sum_ns;
	_Atomic uint64_t final_count[3]; /* [how - 1] of granules SAVED */
	_Atomic uint64_t holes, lost, spilled, bytes_pool, retaken;
	_Atomic uint64_t quiesce_ns, arm_ns, resume_ns, pause_ns, instant_mono_ns, instant_wall_ns;
	_Atomic uint64_t sweep_start_ns, drained_ns;
	_Atomic uint32_t failure_taken; /* 0 none, 1 being written, 2 readable */
	ldfs_failure failure;
};

static inline uint64_t ldfs_granule_start(const ldfs_dump *d, uint32_t g)
{
	return (uint64_t)g << d->granule_shift;
}

/* Bytes of granule g: the last one may be short. */
static inline uint64_t ldfs_granule_length(const ldfs_dump *d, uint32_t g)
{
	uint64_t start = ldfs_granule_start(d, g), size = 1ULL << d->granule_shift;

	return d->arena->size - start < size ? d->arena->size - start : size;
}

static inline uint32_t ldfs_granule_of(const ldfs_dump *d, uint64_t offset)
{
	return (uint32_t)(offset >> d->granule_shift);
}

static inline bool ldfs_released(const ldfs_dump *d)
{
	return load_seq(&d->phase) == LDFS_PHASE_RELEASED;
}

/* --------------------------------------------------------------- failure.c */

/* [signal] Keep the first error. pfn UINT64_MAX: none. */
void ldfs_fail(ldfs_dump *d, uint32_t operation, int error, uint64_t pfn);
/* [signal] From now on policy `fail`; wakes all threads that wait for a slot. */
void ldfs_give_up(ldfs_dump *d);
/*
 * [any thread] The target answered `error` (-errno) for data at `pfn`: give up; and after anything
 * but a few EIO it is not tried again.
 */
void ldfs_target_failed(ldfs_dump *d, int error, uint64_t pfn);

/* --------------------------------------------------------------- granule.c
 * The steps. Those that return bool return false, and leave the state, when the granule is in
 * another one; publish and copy_lost are for the holder of the claim, whose granule no other thread
 * moves. All are [signal]. The names are those of tests/model/.
 */
bool ldfs_step_claim(ldfs_dump *d, uint32_t g);
bool ldfs_step_steal(ldfs_dump *d, uint32_t g);
void ldfs_step_publish(ldfs_dump *d, uint32_t g, uint32_t slot, bool stolen);
bool ldfs_step_sweep(ldfs_dump *d, uint32_t g);
uint8_t ldfs_step_sweep_over(ldfs_dump *d, uint32_t g, uint8_t result, uint64_t checksum);
bool ldfs_step_saved(ldfs_dump *d, uint32_t g, uint64_t checksum);
bool ldfs_step_slot_lost(ldfs_dump *d, uint32_t g);
bool ldfs_step_lose(ldfs_dump *d, uint32_t g);
void ldfs_step_copy_lost(ldfs_dump *d, uint32_t g);

static inline bool ldfs_granule_full(const ldfs_dump *d, uint32_t g)
{
	return load_seq(&d->full[g]) == GRANULE_FULL;
}

static inline uint8_t ldfs_state(const ldfs_dump *d, uint32_t g)
{
	return load_seq(&d->state[g]);
}

static inline bool ldfs_state_final(uint8_t s)
{
	return s >= LDFS_G_SAVED;
}

/* --------------------------------------------------------------- protect.c, [signal] */
enum { LDFS_OPENED = 1, LDFS_STORED_TO }; /* writable; and it is so because of a store to it */
/* Whether granule g may be made writable alone: false when that would need one island too many. */
bool ldfs_protect_may_split(const ldfs_dump *d, uint32_t g);
/* Make granules [first, last], both inclusive, writable. 0 or a positive errno. */
int ldfs_protect_open(ldfs_dump *d, uint32_t first, uint32_t last);

/* --------------------------------------------------------------- threads.c
 * The threads of a dump: counted, so that RELEASE knows when all have ended.
 */

/* Begin one, whose argument is `arg`. 0 or -errno. */
int ldfs_threads_start(ldfs_dump *d, pthread_t *thread, void *(*main)(void *), void *arg,
		       const char *name);
/* The last act of each. */
void ldfs_threads_ended(ldfs_dump *d);

#endif
