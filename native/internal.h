/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * internal.h - the structs of the core and what its files offer each other.
 *
 * Lock order: arena_lock (arena.c) before table.lock. Nothing that runs in the signal handler takes
 * a lock; the handler touches only what is marked [signal] below.
 */
#ifndef LDFS_INTERNAL_H
#define LDFS_INTERNAL_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/buffer.h"
#include "ldfs.h"

#define NO_SLOT UINT32_MAX
#define GRANULE_FULL 1    /* in ldfs_dump.full; 0: may have holes */
#define GRANULE_PUNCHED 2 /* had a hole made in it during this dump: never full again */
#define CACHE_LINE 64

/* ---------------------------------------------------------------- event.c
 * A word to sleep on: whoever waits reads `seq`, looks at its condition, then sleeps while `seq`
 * is unchanged. notify is one load when nobody waits. [signal]
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
/* Wake one of those who wait: for a condition that whoever wakes ends for all. */
void ldfs_event_notify_one(struct ldfs_event *e);
/* Once more round a loop that waits for what somebody else is about to finish; *turns is 0 at first. */
void ldfs_event_soon(unsigned *turns);
uint64_t ldfs_now_ns(void);                  /* CLOCK_MONOTONIC */
uint64_t ldfs_deadline(uint64_t relative_ns); /* now + relative, saturating */

/* --------------------------------------------------------------- urgent.c */

/* [any thread] By thread id, 0: the caller. False: it is not ordinary, or we may not; then it must not be lowered. */
bool ldfs_urgent_raise(pid_t thread);
/* [any thread] One that was raised. */
void ldfs_urgent_lower(pid_t thread);

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
 * Whether all of whole pages is 0; looks little further than the first byte that is not. [any thread]
 */
bool ldfs_all_zero(const void *bytes, uint64_t length);

/* ----------------------------------------------------------------- uffd.c
 * The second fault backend: userfaultfd write protection on views of one arena, and its monitor.
 */
struct ldfs_uffd {
	int fd;   /* -1: not opened yet; from then on as long as the arena */
	int stop; /* eventfd: the monitor ends */
	_Atomic uint64_t self; /* the monitor's pthread_self(); 0: it has not begun */
	_Atomic pid_t tid;     /* and its thread id */
	pthread_t monitor;
};

/* Make userfaultfd and monitor unless they are there. `given`: a fresh userfaultfd, or -1. */
int ldfs_uffd_open(ldfs_arena *a, int given);
void ldfs_uffd_close(ldfs_arena *a);
/* Write-protect [start, start + length) of a view of the arena, holes too. */
int ldfs_uffd_protect(ldfs_arena *a, uint8_t *start, uint64_t length);
/* [signal] The opposite, for memory that was protected at any time; wakes whoever waits there. -EAGAIN, on
 * the monitor only: a mapping is being moved, and the event is its own to read first. */
int ldfs_uffd_unprotect(ldfs_arena *a, uint8_t *start, uint64_t length);
/* The program may use userfaultfd there for itself; of what is not protected any more. */
void ldfs_uffd_forget(ldfs_arena *a, uint8_t *start, uint64_t length);

/* ----------------------------------------------------------------- huge.c */
struct ldfs_huge {
	pthread_t thread;
	bool made; /* whoever does RELEASE, then the owner */
	_Atomic uint32_t stop;
};

/* Begin to map the live view by huge pages where its memory lies in such. When nothing is protected any more. */
void ldfs_huge_restore(ldfs_arena *a);
/* [owner] Have it end, as far as it has come. */
void ldfs_huge_stop(ldfs_arena *a);

/* ---------------------------------------------------------------- arena.c */
struct ldfs_arena {
	uint64_t size;
	int memfd;
	uint8_t *live;     /* RW between dumps; its address never changes */
	bool adopted;      /* live was there before the arena, and stays */
	uint32_t advice;   /* owner; what the memory's owner has told the kernel, for ldfs_vma_advise */
	uint8_t *observer; /* R, never moved; our own reads */
	uint8_t *shadow;   /* reserved, or R with its page tables filled (shadow_ready) */
	uint8_t *spare;    /* reserved, or the live mapping of before the last swap (spare_mapped) */
	bool shadow_ready; /* owner */
	uint32_t shadow_backend; /* owner; enum ldfs_backend that a ready shadow is protected by */
	_Atomic uint32_t shadow_torn; /* 1: a part of it could not be protected again */
	_Atomic uint32_t shadow_guarded; /* 1: userfaultfd protects it, or is about to; until the swap */
	struct ldfs_uffd uffd;
	struct ldfs_huge huge;
	bool spare_mapped; /* owner */
	int fault_slot;    /* index into ldfs_fault_slots */
	pid_t pid;         /* of the process that made it */
	_Atomic(ldfs_dump *) dump;  /* [signal] what faults belong to; NULL: none armed */
	_Atomic(ldfs_dump *) owner; /* the dump that exists, from INIT until it is freed */
};

/*
 * A forked child has a copy of the structs, but not the threads, a view of its own of the memory (child.c), and the memfd is its
 * parent's: it may do nothing with an arena or a dump. [signal]
 */
static inline bool ldfs_arena_foreign(const ldfs_arena *a)
{
	return a->pid != getpid();
}

/* Fill the observer's page tables, so that neither handler nor sweep takes page faults there. */
int ldfs_arena_prepare_observer(ldfs_arena *a);
int ldfs_arena_prepare_shadow(ldfs_arena *a, uint32_t backend);
int ldfs_arena_swap(ldfs_arena *a);
int ldfs_arena_protect(ldfs_arena *a, uint32_t backend);
int ldfs_arena_unprotect_all(ldfs_arena *a, uint32_t backend);
/* After that, when no dump is armed any more: the live view is as before the first dump. */
void ldfs_arena_forget(ldfs_arena *a, uint32_t backend);
/*
 * The next piece [*start, *end) of data at or after `from`, clipped to `limit`; false: none.
 * -errno through *error.
 */
bool ldfs_arena_next_data(const ldfs_arena *a, uint64_t from, uint64_t limit, uint64_t *start,
			  uint64_t *end, int *error);

/* ---------------------------------------------------------- fault_setup.c, fault_inside.c */
struct ldfs_fault_slot {
	_Atomic(ldfs_arena *) arena; /* NULL: free */
	_Atomic uintptr_t start;     /* of the live view */
	_Atomic uintptr_t end;       /* exclusive */
	_Atomic uint32_t handlers;   /* handlers at work on it */
	_Atomic uint32_t callers;    /* threads in writable or discard, and the userfaultfd monitor */
} __attribute__((aligned(CACHE_LINE)));

extern struct ldfs_fault_slot ldfs_fault_slots[LDFS_MAX_ARENAS];
extern _Atomic uint32_t ldfs_fault_slots_used; /* slots [0, used) may be in use */
/*
 * Our handler has several entries, which differ only in whom they pass a fault on to that is not ours: entry 0
 * to what was there before us, each other to the handler over which it was put. Whoever took
 * the signal from an entry may call that entry: it leads further down, never back to him.
 */
#define LDFS_ENTRIES 17
struct ldfs_fault_entry {
	struct sigaction below; /* constant once the entry has been installed */
	uint8_t next;           /* the same: the entry that was on top of all when this one was made */
	_Atomic uint8_t moved;  /* the handler below took the signal again, and is below a newer entry, too */
	_Atomic uint8_t spent;  /* it wanted to be called once (SA_RESETHAND), and was */
};
extern void (*const ldfs_fault_entries[LDFS_ENTRIES])(int signo, siginfo_t *info, void *context);
extern struct ldfs_fault_entry ldfs_fault_chain[LDFS_ENTRIES];
extern _Atomic uint64_t ldfs_fault_chained;
extern const uint64_t ldfs_fault_mask; /* signals blocked while a handler may hold a granule, as the kernel has them */

/* What every entry does. */
void ldfs_fault_handler(unsigned entry, int signo, siginfo_t *info, void *context);
/* ldfs_save_make_writable() for a store that faulted: counted, with its time. */
void ldfs_fault_save_for(ldfs_dump *d, uint32_t g);
/*
 * [any thread] Put our handler back on top. 0: it was there; 1: it was not; 2: it was not, and as all entries
 * are used up, the handler found there gets no faults any more.
 */
int ldfs_fault_retake(void);
int ldfs_fault_register(ldfs_arena *a);
void ldfs_fault_unregister(ldfs_arena *a);
/* Count the caller in and out, as a handler counts itself, so that START and RELEASE wait for it. */
void ldfs_fault_enter(ldfs_arena *a);
void ldfs_fault_leave(ldfs_arena *a);
/* Handlers and callers. */
uint32_t ldfs_fault_inside(const ldfs_arena *a);

/* ---------------------------------------------------------------- child.c */
/* In a forked child, before anything else runs there: a private view of the memory at the live address. False: it has none, or
 * can only read it. */
bool ldfs_child_map(const ldfs_arena *a);
/* [signal] One line on stderr when the fault is that of a child without such a view, of which it is about to die. */
void ldfs_child_tell(const siginfo_t *info);

/* ----------------------------------------------------------------------- save.c, [signal] */
/* Save granule g and make it writable. `stored`: because of a store, and perhaps some around it, too. */
void ldfs_save_make_writable(ldfs_dump *d, uint32_t g, bool stored);

/* ----------------------------------------------------------------------- vma.c */

/*
 * Advice that the owner of the mapping at `view` gave (no core file, no child), as bits of vma.c's own. To find it the kernel
 * walks the pages of each mapping up to that one, and keeps out who maps meanwhile: not for a machine that has filled its memory.
 */
int ldfs_vma_read(const uint8_t *view, uint32_t *advice);
int ldfs_vma_advise(uint8_t *view, uint64_t size, uint32_t advice);
/* Whether all that is mapped of the mapping at `view` is so by huge pages. Walks as the above. */
bool ldfs_vma_all_huge(const uint8_t *view);

/* --------------------------------------------------------------- protect.c, [signal] */
enum { LDFS_OPENED = 1, LDFS_STORED_TO }; /* writable; and it is so because of a store to it */
/* Whether granule g may be made writable alone: false when that would need one island too many. */
bool ldfs_protect_may_split(const ldfs_dump *d, uint32_t g);
/* Make granules [first, last], both inclusive, writable. 0 or a positive errno. */
int ldfs_protect_open(ldfs_dump *d, uint32_t first, uint32_t last);

/* ------------------------------------------------------------------ ring.c */
struct ldfs_slot {
	_Atomic uint32_t next; /* in the free or the filled stack: index + 1, 0: end */
	uint32_t granule;      /* whose bytes it holds; writer and owner of the slot */
};

struct ldfs_ring {
	uint8_t *bytes;         /* limit slots of slot_size, reserved; [0, made) are there */
	struct ldfs_slot *slots;
	uint64_t slot_size;     /* bytes */
	_Atomic uint32_t made;  /* slots that exist */
	_Atomic uint32_t limit; /* slots at the most */
	uint32_t reserved;      /* slots that `bytes` and `slots` have room for */
	bool grows;             /* policy spill: the keeper adds slots */
	_Atomic uint64_t free __attribute__((aligned(CACHE_LINE)));  /* tag << 32 | index + 1 */
	_Atomic uint32_t filled __attribute__((aligned(CACHE_LINE))); /* index + 1 */
	_Atomic uint32_t in_use;
	_Atomic int32_t to_spare;  /* slots that fault-around may take: what the target has freed lately. A hint */
	_Atomic uint64_t peak;
	struct ldfs_event freed;   /* a slot or a granule's fate changed: for those who wait for a slot */
	struct ldfs_event arrived; /* something is filled, or a sweep I/O ended: for the writer */
	struct ldfs_event low;     /* for the keeper */
	pthread_t keeper;
	bool keeper_made; /* owner */
};

int ldfs_ring_init(struct ldfs_ring *r, uint64_t slot_size, uint64_t made, uint64_t limit, bool grows);
void ldfs_ring_destroy(struct ldfs_ring *r);
uint32_t ldfs_ring_take(struct ldfs_ring *r);             /* [signal] a free slot or NO_SLOT */
void ldfs_ring_give(struct ldfs_ring *r, uint32_t slot);  /* [signal] back to the free ones */
void ldfs_ring_freed(struct ldfs_ring *r, uint32_t slot); /* the same, of one that went to the target */
void ldfs_ring_put(struct ldfs_ring *r, uint32_t slot);   /* [signal] to the filled ones */
uint32_t ldfs_ring_take_filled(struct ldfs_ring *r);      /* chain by `next`, index + 1; 0: none */
bool ldfs_ring_can_grow(const struct ldfs_ring *r);       /* [signal] */
void *ldfs_ring_keeper(void *dump);                       /* thread */

static inline uint8_t *ldfs_slot_bytes(const struct ldfs_ring *r, uint32_t slot)
{
	return r->bytes + (uint64_t)slot * r->slot_size;
}

/* ----------------------------------------------------------------- table.c */
struct ldfs_table {
	int fd;          /* -1: no table on the target */
	uint64_t offset; /* of block 0 */
	uint32_t blocks;
	uint8_t dump_id[16];
	_Atomic uint8_t *dirty; /* one a block */
	_Atomic uint64_t next_flush_ns;
	pthread_mutex_t lock;   /* one flush at a time, so that an older block never overwrites a newer */
};

int ldfs_table_init(ldfs_dump *d, const ldfs_dump_config *config);
void ldfs_table_destroy(ldfs_dump *d);
int ldfs_table_write_empty(ldfs_dump *d);
int ldfs_table_flush(ldfs_dump *d);  /* dirty blocks to the target */
void ldfs_table_tick(ldfs_dump *d);  /* the same, when the time has come; errors are kept */
void ldfs_table_mark(ldfs_dump *d, uint32_t g); /* [signal] */

/* ---------------------------------------------------------------- target.c */
struct ldfs_target {
	int fd; /* -1: none */
	int direct_fd; /* the same past the page cache (O_DIRECT); -1: none */
	_Atomic bool direct; /* that works */
	ldfs_stream *stream; /* NULL: fd is written */
	bool reads_zero;
	bool zero_range; /* the kernel can zero a range of it */
	bool zero_costs; /* and then may have to write the zeros out */
	ldfs_extent *extents;
	uint32_t extent_count;
};

int ldfs_target_init(struct ldfs_target *t, const ldfs_dump_config *config, uint64_t arena_size);
void ldfs_target_destroy(struct ldfs_target *t);
/* `direct`: past the page cache, where the target can. */
int ldfs_target_write(struct ldfs_target *t, uint64_t arena_offset, const void *buf, uint64_t length,
		      bool direct);
/* *written: bytes that were written out, or may have been, to do it. */
int ldfs_target_zero(struct ldfs_target *t, uint64_t arena_offset, uint64_t length, uint64_t *written);
int ldfs_target_read(const struct ldfs_target *t, uint64_t arena_offset, void *buf, uint64_t length);
/* `length` bytes of buf at offset `at` of the target, as a record when it is a stream. */
int ldfs_target_put(const struct ldfs_target *t, const void *buf, uint64_t length, uint64_t at);
/* Bytes from arena_offset on that lie together on the target, at *target_offset. */
uint64_t ldfs_target_run(const struct ldfs_target *t, uint64_t arena_offset, uint64_t *target_offset);

/* ------------------------------------------------------------------ pack.c
 * A packed target: where each page went. `size` and `where` of a granule belong to whoever may take it
 * to its final state - the sweep before its slot's writer - and to all who have seen it SAVED.
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

struct codec;

int ldfs_pack_init(ldfs_dump *d, const ldfs_dump_config *config);
void ldfs_pack_destroy(ldfs_dump *d);
/* Pack granule g, whose bytes are at `bytes`, to `out`: fills in its sizes. Bytes used. */
uint64_t ldfs_pack_granule(ldfs_dump *d, struct codec *c, uint32_t g, const void *bytes, uint8_t *out);
/* Bytes stored for granule g. */
uint64_t ldfs_pack_stored(const ldfs_dump *d, uint32_t g);
/* Append to the target; *at is where. */
int ldfs_pack_append(ldfs_dump *d, const void *bytes, uint64_t length, uint64_t *at);
/* Write the descriptors of the granules that `block` calls saved or holes. table.lock is held. */
int ldfs_pack_note(ldfs_dump *d, const ldfs_table_block *block);
/* Bytes [offset, +length) within granule g, which is SAVED. -EIO: they left by a pipe. */
int ldfs_pack_read(const ldfs_dump *d, uint32_t g, uint64_t offset, void *buf, uint64_t length);

/* ----------------------------------------------------------------- packer.c */
struct ldfs_packer; /* a thread that packs slots, and what the sweep has to save */

int ldfs_packers_init(ldfs_dump *d, uint32_t count);
void ldfs_packers_destroy(ldfs_dump *d);
int ldfs_packers_start(ldfs_dump *d);
void ldfs_packers_join(ldfs_dump *d);

/* ------------------------------------------------------------------ batch.c
 * Slots that one thread has taken to write, each in exactly one batch.
 */
struct ldfs_batch {
	uint32_t *slots; /* room for all there can be */
	uint32_t count;
};

int ldfs_batch_init(struct ldfs_batch *b, const struct ldfs_ring *r);
void ldfs_batch_take(struct ldfs_batch *b, ldfs_dump *d); /* all that is filled */
uint32_t ldfs_batch_granule(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i);
/* Whether slot i of the batch may be written: no sweep I/O on its granule is under way. */
bool ldfs_batch_writable(const struct ldfs_batch *b, const ldfs_dump *d, uint32_t i);
/* Anything to do for a thread with that batch? Else wait until `deadline_ns` for it. */
void ldfs_batch_wait(const struct ldfs_batch *b, ldfs_dump *d, uint64_t deadline_ns);

/* ------------------------------------------------------------------ sweep.c */
#define LDFS_RUN_BYTES (1u << 20) /* claimed at once, and made writable again at once */
#define LDFS_RUN_DIRECT (4u << 20) /* the same where nothing is copied: one I/O */
#define LDFS_RUN_MOST (LDFS_RUN_DIRECT / LDFS_PAGE_SIZE) /* granules of a run */

/* Claim the run of armed granules that begins at or after *first, below `limit`. False: none left. */
bool ldfs_sweep_claim(ldfs_dump *d, uint32_t *first, uint32_t *end, uint32_t limit);
/* `states` are those that ldfs_step_sweep_over gave for [first, end): open, and wake who waits. */
void ldfs_sweep_opened(ldfs_dump *d, const uint8_t *states, uint32_t first, uint32_t end);
/* The target failed with `rc` for claimed [first, end). */
void ldfs_sweep_failed(ldfs_dump *d, uint32_t first, uint32_t end, int rc);
/* When the sweep may go on, by its rate. */
uint64_t ldfs_sweep_due_ns(const ldfs_dump *d);
/* Granules of one run. */
uint32_t ldfs_sweep_run_most(const ldfs_dump *d);
bool ldfs_sweep_all_full(const ldfs_dump *d, uint32_t first, uint32_t end);

/* ------------------------------------------------------------------ dump.c */
struct ldfs_dump {
	ldfs_arena *arena;
	uint32_t granules;
	uint32_t granule_shift; /* granule size is 1 << shift */
	uint32_t policy;
	uint32_t arming;
	uint32_t backend;
	uint64_t sweep_rate;
	uint64_t stall_deadline_ns;
	int reference_fd;

	/* per granule */
	_Atomic uint8_t *state;
	_Atomic uint8_t *writable; /* since START: 0, or LDFS_OPENED, LDFS_STORED_TO; never taken back */
	_Atomic uint8_t *full;     /* GRANULE_FULL: no holes, reading it through a view allocates none */
	_Atomic uint32_t *slot_of; /* valid in IN_SLOT and STOLEN */
	uint64_t *checksum;        /* written before the step into SAVED, read after it */
	uint8_t *how;              /* the same */

	_Atomic int64_t islands;   /* stretches of writable granules, see protect.c */
	int64_t islands_most;

	_Atomic uint32_t phase;    /* enum ldfs_phase */
	uint8_t *sweep_scratch;    /* one granule */
	struct ldfs_batch writer_batch;
	_Atomic uint64_t swept;    /* bytes that the sweep has written: the rate counts them, and no holes */
	_Atomic uint64_t sweep_next; /* packed target: first granule of the piece that nobody has */
	_Atomic uint32_t gave_up;  /* policy counts as `fail` from now on */
	_Atomic uint32_t abandoned; /* the target is gone: what is not saved yet is lost */
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

	pthread_t sweep_thread, writer_thread, guard_thread;
	bool sweep_made, writer_made, guard_made; /* owner */
	struct ldfs_event guard_wake; /* phase changes */
	_Atomic uint32_t threads_running;
	_Atomic uint32_t release_begun, release_done;

	/* counters; see ldfs_counters */
	_Atomic uint64_t faults __attribute__((aligned(CACHE_LINE)));
	_Atomic uint64_t steals, widened, slot_waits, slot_wait_ns, stall_max_ns;
	_Atomic uint64_t handler_ns[LDFS_HISTOGRAM_BINS], handler_sum_ns;
	_Atomic uint64_t final_count[3]; /* [how - 1] of granules SAVED */
	_Atomic uint64_t holes, lost, spilled, bytes_pool, retaken, left_out;
	uint64_t quiesce_ns, arm_ns, resume_ns, pause_ns, instant_mono_ns, instant_wall_ns;
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

/* [signal] Keep the first error. pfn UINT64_MAX: none. */
void ldfs_fail(ldfs_dump *d, uint32_t operation, int error, uint64_t pfn);
/* [signal] From now on policy `fail`; wakes all who wait for a slot. */
void ldfs_give_up(ldfs_dump *d);
/*
 * [any thread] The target answered `error` (-errno) for data at `pfn`: give up; and after anything but
 * a few EIO it is not tried again.
 */
void ldfs_target_failed(ldfs_dump *d, int error, uint64_t pfn);

/* --------------------------------------------------------------- granule.c
 * The steps. Each returns false, and changes nothing, when the granule is in another state.
 * All are [signal]. The names are those of tests/model/.
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

/* ---------------------------------------------------------------- threads */
void *ldfs_sweep_main(void *dump);  /* sweep.c */
void *ldfs_writer_main(void *dump); /* writer.c */
void *ldfs_guard_main(void *dump);  /* guard.c */
int ldfs_thread_start(pthread_t *thread, void *(*main)(void *), void *arg, const char *name);
void ldfs_thread_ended(ldfs_dump *d); /* last act of each of a dump's threads */

#endif
