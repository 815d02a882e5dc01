/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * protocol.pml - the protocol of docs/concurrency.md, for spin. The models beside this file set the
 * sizes below and include it. What is abstracted away, and why that is sound, is in README.md.
 *
 * One granule is one cell: the protocol treats all bytes of a granule alike, so whatever can go
 * wrong with any of its bytes goes wrong with this one. A copy, a pwrite or a checksum reads the
 * cell at some moment between its begin and its end.
 *
 * The names of the steps are those of native/state/granule.c. A BUG_ macro puts one known bug back.
 */

/* Sizes: granules, slots, vCPUs, stores of each vCPU. */
#ifndef NG
#define NG 2
#endif
#ifndef NS
#define NS 1
#endif
#ifndef NV
#define NV 2
#endif
#ifndef STORES
#define STORES 1
#endif
#ifndef NP
#define NP 2                        /* packers */
#endif
#ifndef VMA_LIMIT
#define VMA_LIMIT 255
#endif
#ifndef FIRST_PHASE
#define FIRST_PHASE PHASE_SWEEPING
#endif

/* States, with the numbers of enum ldfs_state. */
#define ARMED 0
#define CLAIMED 1
#define IN_SLOT 2
#define SWEEPING 3
#define STEALING 4
#define STOLEN 5
#define SAVED 6
#define HOLE 7
#define LOST 8

#define FINAL(s) ((s) >= SAVED)
#define IN_POOL(s) ((s) == IN_SLOT || (s) == STOLEN)
#define COPYING(s) ((s) == CLAIMED || (s) == STEALING)
#define TAKEABLE(s) ((s) == ARMED || (s) == SWEEPING)
#define IN_MEMORY(s) (TAKEABLE(s) || COPYING(s))

/* Phases, with the numbers of enum ldfs_phase. */
#define PHASE_READY 1
#define PHASE_ARMED 2
#define PHASE_SWEEPING 3
#define PHASE_DRAINED 4
#define PHASE_RELEASED 5

#define BLOCK 0
#define FAIL 1

#define NONE 15                     /* no slot */
#define NOTHING 255                 /* what a cell holds before anything was put there */
#define ZERO 0
#define ALL_SLOTS ((1 << NS) - 1)
#define BIT(i) (1 << (i))
#define CELL(g) (16 * ((g) + 1))    /* of different granules different, and never ZERO */

byte state[NG];
byte mem[NG];                       /* the arena: a store adds 1 */
byte instant[NG];                   /* ghost: mem at the snapshot instant */
bit writable[NG];
byte target[NG];
byte sum[NG];                       /* table entry in memory: checksum = the bytes it was made of */
byte slot_of[NG];
byte slot_bytes[NS];
byte slot_granule[NS];
#ifndef SLOTS_AT_FIRST
#define SLOTS_AT_FIRST ALL_SLOTS
#endif
byte free_slots = SLOTS_AT_FIRST;   /* bit masks of slots */
byte filled;
byte remaining = NG;
byte inside;
byte readers;
byte phase = FIRST_PHASE;
byte policy = BLOCK;                /* what it counts as now */
#ifdef SPILL
byte made = MADE;                   /* slots that are there, and how many there may be */
byte limit = NS;
bit low_event = 1;                  /* the keeper's */
bit growth_failed;                  /* ghost */
#define CAN_GROW (made < limit)
#define USED (made - (free_slots & 1) - ((free_slots >> 1) & 1) - ((free_slots >> 2) & 1))
#ifdef TARGET
#define MAY_WAIT true
#else
#define MAY_WAIT CAN_GROW           /* nothing else ever frees a slot */
#endif
#define MAY_LOSE (growth_failed && !MAY_WAIT)
#else
#define MAY_WAIT true
#define MAY_LOSE (policy == FAIL)
#endif
#ifdef LATE_READERS
byte generation = 1;                /* ghost: of which dump all of this is; readers have the first one's handle */
bit closed;                         /* the handle leads to no dump any more */
byte users;                         /* readers that are in a call with it */
#endif
bit linked = 1;                     /* the arena points at the dump */
bit freed;                          /* ghost: the dump's memory is gone */
bit io_failed;                      /* ghost: some I/O failed, or a deadline passed */
bit sealed;                         /* DRAINED was entered: the dump will say "consistent" */
#if defined(PACKERS) || defined(HELPER)
#define SAVERS                      /* two threads take filled slots */
bit packer_event[2] = 1;            /* one for each (writer, helper): notify wakes all that sleep on one word */
byte sweep_next;                    /* first granule that no thread has taken to sweep */
byte packers_ended;
#endif
#ifdef HELPER
bit called;                         /* the helper is to work */
bit change_event = 1;               /* it sleeps until it is called */
#endif
#ifdef STREAM
bit stream_locked;                  /* one record at a time */
bit stream_broken;                  /* nothing more goes in */
bit cancelled;                      /* by RELEASE */
bit table_out;                      /* ghost: the table went into the pipe */
#endif
bit writer_event = 1;               /* the futex words: cleared by a thread that is about to sleep, */
bit drain_event = 1;                /* which then looks once more and sleeps until it is set */
bit slot_event[3] = 1;              /* one for each that may wait for a slot; 0: it sleeps */
byte wants[3] = NONE;               /* for which granule */
bit sweep_ended;
bit writer_ended;
bit stop;                           /* quiesce asked for */
byte running;                       /* vCPUs that are not parked */
byte vcpus_ended;
hidden byte i;                      /* only used within one atomic step */
hidden byte vmas;

#ifdef DISCARDS
bit data[NG] = 1;                   /* 0: the memfd has a hole here */
#endif

/* HOLES: granule 0 reads as zeros until it is first written, a hole or not. DISCARDS: any does after a punch. */
#ifdef HOLES
#define FIRST_CELL(g) ((g) == 0 -> ZERO : CELL(g))
#else
#define FIRST_CELL(g) CELL(g)
#endif

/* Which threads store although the machine stands: those that quiesce does not stop. */
#if defined(UFFD) || defined(SIGNALS)
#define STOPS(me) ((me) == 0)
#else
#define STOPS(me) true
#endif

/* Whether a reader may touch the dump. */
#ifdef LATE_READERS
#define IS_THERE (!freed && generation == 1)
#else
#define IS_THERE (!freed)
#endif

/* What "the bytes are safe" means, byte for byte. */
#define SAFE(g) ( \
	state[g] == LOST || \
	(IN_POOL(state[g]) && slot_bytes[slot_of[g]] == instant[g]) || \
	(state[g] == SAVED && target[g] == instant[g]) || \
	(state[g] == HOLE && instant[g] == ZERO))
/* Nothing is promised any more once the dump is released. */
#ifdef RELEASES
#define ON (phase != PHASE_RELEASED)
#else
#define ON true
#endif
/* RELEASE ended the write to a pipe: no thread reads states any more, and nothing counts as lost. */
#if defined(STREAM) && !defined(BUG_CUT_OFF_COUNTS)
#define CUT_OFF(good) (!(good) && !ON)
#else
#define CUT_OFF(good) false
#endif
#define SEEN (phase == PHASE_ARMED || phase == PHASE_SWEEPING || phase == PHASE_DRAINED)

#ifdef UFFD
#include "kernel.pml"
#endif
#ifdef SIGNALS
#include "signals.pml"
#endif

/* ------------------------------------------------------------------ waking */

inline wake_writer()
{
#ifdef SAVERS
	packer_event[0] = 1;
	packer_event[1] = 1
#else
	writer_event = 1
#endif
}

/*
 * A packer, the writer or a helper that wakes takes all that is filled: any one of those that sleep
 * will do.
 */
inline wake_one_packer()
{
	if
	:: !packer_event[0] -> packer_event[0] = 1
	:: !packer_event[1] -> packer_event[1] = 1
	:: packer_event[0] && packer_event[1]
	fi
}

/* A slot is free: wakes any one of the threads that sleep until one is. */
inline wake_one_waiter()
{
	if
	:: !slot_event[0] -> slot_event[0] = 1
	:: !slot_event[1] -> slot_event[1] = 1
	:: !slot_event[2] -> slot_event[2] = 1
	:: slot_event[0] && slot_event[1] && slot_event[2]
	fi
}

/*
 * Granule x needs no slot any more: wakes all threads that want one for it. In C also some that want one for a granule
 * near it.
 */
inline wake_waiters_of(x)
{
#ifdef BUG_WAKE_ONE
	wake_one_waiter()
#else
	slot_event[0] = slot_event[0] || wants[0] == x;
	slot_event[1] = slot_event[1] || wants[1] == x;
	slot_event[2] = slot_event[2] || wants[2] == x
#endif
}

/* No thread is to wait any more. */
inline wake_all_waiters()
{
	slot_event[0] = 1;
	slot_event[1] = 1;
	slot_event[2] = 1
}

/* A thread that was woken for a slot and needs none: the wake-up is another's. */
inline pass_on()
{
#ifdef BUG_NO_PASS_ON
	woken = 0
#else
	atomic {
		if
		:: woken && free_slots != 0 -> wake_one_waiter()
		:: else
		fi;
		woken = 0
	}
#endif
}

/* ------------------------------------------------- steps between states */

/*
 * Part of every step into a final state: the count, and the drain that waits for it. In C the count
 * comes after the state; the drain alone sees it late, and may also be late by itself.
 */
inline one_less()
{
	assert(remaining > 0);
	remaining--;
#ifndef BUG_NO_WAKE_DRAIN
	if :: remaining == 0 -> drain_event = 1 :: else fi
#endif
}

inline step_claim(g, won)
{
	d_step { won = (state[g] == ARMED); if :: won -> state[g] = CLAIMED :: else fi }
}

inline step_steal(g, won)
{
	d_step { won = (state[g] == SWEEPING); if :: won -> state[g] = STEALING :: else fi }
}

inline step_publish(g)
{
	d_step {
		assert(state[g] == CLAIMED);
		assert(slot_bytes[slot_of[g]] == instant[g] || !ON);
		state[g] = IN_SLOT
	}
}

inline step_publish_stolen(g, won)
{
	d_step {
		won = (state[g] == STEALING);
		if
		:: won ->
			assert(slot_bytes[slot_of[g]] == instant[g] || !ON);
			state[g] = STOLEN
		:: else -> assert(state[g] == CLAIMED)
		fi
	}
}

inline step_lose(g, won)
{
	d_step {
		assert(MAY_LOSE);
		won = TAKEABLE(state[g]);
		if :: won -> state[g] = LOST; one_less() :: else fi
	}
}

inline step_sweep(g, won)
{
	d_step { won = (state[g] == ARMED); if :: won -> state[g] = SWEEPING :: else fi }
}

/* before: the state that the step found. Loops in C until a compare-and-swap is won: one step here. */
inline step_sweep_over(g, io_good, hole, before)
{
	d_step {
		before = state[g];
		if
		:: before == SWEEPING && !io_good -> assert(io_failed); state[g] = LOST; one_less()
		:: before == SWEEPING && io_good && hole ->
			assert((instant[g] == ZERO && target[g] == ZERO) || !ON);
			state[g] = HOLE;
			one_less()
		:: before == SWEEPING && io_good && !hole ->
#ifndef BUG_SUM_AFTER_STEP
			assert(sum[g] == instant[g] || !ON);
#endif
			assert(target[g] == instant[g] || !ON);
			state[g] = SAVED;
			one_less()
		:: before == STEALING -> state[g] = CLAIMED
#ifdef BUG_STOLEN_COUNTS
		:: before == STOLEN -> state[g] = SAVED; one_less()
#else
		:: before == STOLEN -> state[g] = IN_SLOT
#endif
		:: before == LOST -> skip
		:: else -> assert(false)
		fi
	}
}

inline step_saved(g)
{
	d_step {
		assert(state[g] == IN_SLOT);
		assert((target[g] == instant[g] && sum[g] == instant[g]) || !ON);
		state[g] = SAVED;
		one_less()
	}
}

inline step_slot_lost(g)
{
	d_step { assert(state[g] == IN_SLOT && io_failed); state[g] = LOST; one_less() }
}

/* The handler could not read the memory. */
inline step_copy_lost(g)
{
	d_step { assert(COPYING(state[g]) && io_failed); state[g] = LOST; one_less() }
}

/* ------------------------------------------------------------------- slots */

inline slot_take(slot)
{
	d_step {
		assert(!freed);
		if
		:: free_slots & 1 -> slot = 0
		:: !(free_slots & 1) && (free_slots & 2) -> slot = 1
		:: !(free_slots & 3) && (free_slots & 4) -> slot = 2
		:: else -> slot = NONE
		fi;
		if
		:: slot != NONE ->
			free_slots = free_slots & ~BIT(slot);
			slot_bytes[slot] = NOTHING
		:: else
		fi
	}
}

inline slot_free(slot)
{
	atomic {
		assert(!freed && !(free_slots & BIT(slot)));
		free_slots = free_slots | BIT(slot);
		wake_one_waiter()
	}
}

/* A slot that was taken and not used. */
inline slot_give_back(slot)
{
#ifdef BUG_NO_WAKE_BACK
	d_step { free_slots = free_slots | BIT(slot) };
#else
	slot_free(slot);
#endif
	slot = NONE
}

inline slot_push(slot)
{
	d_step {
		assert(!freed);
		filled = filled | BIT(slot);
		slot = NONE;
#ifndef SAVERS
		wake_writer()
	}
#else
	};
	atomic { wake_one_packer() }
#endif
}

/* -------------------------------------------------------------- protection */

/* How many VMAs the live view would have with [first_g, last_g] writable. */
inline count_vmas(first_g, last_g)
{
	i = 1;
	vmas = 1;
	do
	:: i < NG ->
		vmas = vmas + ((writable[i] || (i >= first_g && i <= last_g)) !=
			(writable[i - 1] || (i - 1 >= first_g && i - 1 <= last_g)));
		i++
	:: else -> break
	od;
	i = 0
}

/*
 * mprotect(PROT_READ|PROT_WRITE) of granules [first_g, last_g]; good = 0: ENOMEM. Or the same by userfaultfd,
 * which wakes the vCPUs that sleep there; good = 0: EAGAIN.
 */
inline make_writable(first_g, last_g, good)
{
	d_step {
#ifdef UFFD
		good = !moving;
#else
		count_vmas(first_g, last_g);
		good = (vmas <= VMA_LIMIT);
#endif
		i = first_g;
		do
		:: good && i <= last_g ->
			assert(writable[i] || SAFE(i) || !SEEN);
			writable[i] = 1;
#ifdef UFFD
			wake_stores(i);
#endif
			i++
		:: else -> break
		od;
		i = 0;
		vmas = 0
	}
}

/* -------------------------------------------------------------- fault path */

/*
 * After ENOMEM: the range from g to the nearest writable granule, which merges with it; when no
 * granule is writable, all: what ends at the arena's end alone needs one more VMA, too.
 */
inline widen(g, lo, hi)
{
	atomic {
		d_step {
			i = 0;
			lo = 0;
			hi = NG - 1;
			do
			:: i < g -> if :: writable[i] -> lo = i + 1 :: else fi; i++
			:: else -> break
			od;
			i = NG;
			do
			:: i > g + 1 -> i--; if :: writable[i] -> hi = i - 1 :: else fi
			:: else -> break
			od;
			i = 0
		}
#ifdef BUG_WIDEN_TO_END
		if
		:: g - lo <= hi - g -> hi = g
		:: else -> lo = g
		fi
#else
		if
		:: lo > 0 && (hi == NG - 1 || g - lo <= hi - g) -> hi = g
		:: hi < NG - 1 && (lo == 0 || hi - g <= g - lo) -> lo = g
		:: lo == 0 && hi == NG - 1
		fi
#endif
	}
}

/* Holding won and slot: copy granule x, publish, push. s is the state that was taken. */
inline copy(x)
{
	d_step {
		assert(!freed);
		slot_bytes[slot] = mem[x];
		slot_of[x] = slot;
		slot_granule[slot] = x
	}
}

inline publish(x)
{
	atomic {
		if
		:: s == SWEEPING ->
			step_publish_stolen(x, won);
			if
			:: won
			:: else -> step_publish(x)
			fi
		:: else -> step_publish(x)
		fi;
		slot_push(slot)         /* only the writer can tell that this comes later in C */
	};
#ifndef BUG_NO_WAKE_PUBLISH
	atomic { wake_waiters_of(x) }   /* a thread may wait for a slot for this very granule */
#endif
}

inline claim_or_steal(x)
{
	if
	:: s == ARMED -> step_claim(x, won)
	:: else -> step_steal(x, won)
	fi
}

/* Looks once more between clearing the word and sleeping. A passed deadline means `fail` for all. */
inline wait_for_slot(x)
{
	d_step {
		slot_event[me] = 0;
		wants[me] = x;
		if
		:: free_slots != 0 || policy == FAIL || !MAY_WAIT || !ON || !TAKEABLE(state[x]) -> slot_event[me] = 1
		:: else
		fi
	};
	atomic {
		if
		:: slot_event[me]
#ifdef BUG_POLL
		:: true
#endif
#ifdef DEADLINE
		:: !slot_event[me] ->
			if
			:: TAKEABLE(state[x]) -> policy = FAIL; io_failed = 1; wake_all_waiters()
			:: else                 /* it needs no slot any more: nothing to give up for */
			fi
#endif
		fi;
		slot_event[me] = 1;
		wants[me] = NONE;
		woken = 1
	}
}

/* Steps 1 to 4 of the fault path on granule x. Ends with the bytes safe, or the dump released. */
inline save(x)
{
	do
	:: d_step { assert(!freed); s = state[x] };
		if
		:: !ON -> break
		:: ON && TAKEABLE(s) ->
#ifdef BUG_CLAIM_FIRST
			claim_or_steal(x);
			if
			:: won ->
				do
				:: slot_take(slot);
					if
					:: slot == NONE ->
						slot_event[me] = 0;
						wait_for_slot_holding_claim()
					:: else -> break
					fi
				od;
				copy(x);
				publish(x);
				break
			:: else
			fi
#else
			slot_take(slot);
#ifdef SPILL
#ifndef BUG_NO_WAKE_KEEPER
			d_step { if :: slot != NONE && USED >= made -> low_event = 1 :: else fi };
#endif
			if
			:: slot != NONE || MAY_WAIT
			:: slot == NONE && !MAY_WAIT ->     /* slots are there before it counts as grown to its end */
#ifndef BUG_END_NOT_LOOKED_AT
				slot_take(slot);
#endif
				won = (slot == NONE)
			fi;
#endif
			if
#ifdef SPILL
			:: won ->
				won = 0;
				step_lose(x, won);
				if
				:: won -> atomic { wake_waiters_of(x) }; break
				:: else
				fi
			:: slot == NONE && !won ->
				low_event = 1;
				wait_for_slot(x)
#elif NS >= NG && !defined(BUG_NO_LOOK_AGAIN)
			:: slot == NONE && policy == FAIL ->    /* some thread holds one too many */
				if
				:: free_slots != 0
				:: !TAKEABLE(state[x])
#ifdef RELEASES
				:: !ON
#endif
				fi
#else
			:: slot == NONE && policy == FAIL ->
				step_lose(x, won);
				if
				:: won -> atomic { wake_waiters_of(x) }; break
				:: else
				fi
#endif
#ifndef SPILL
			:: slot == NONE && policy == BLOCK -> wait_for_slot(x)
#endif
			:: slot != NONE ->
				woken = 0;
				claim_or_steal(x);
				if
				:: won ->
#ifdef BUG_WRITABLE_FIRST
					make_writable(x, x, won);
#endif
#ifdef FAILING_COPY
					if
					:: true
					:: io_failed = 1;
						step_copy_lost(x);
						atomic { wake_waiters_of(x) };
						slot_give_back(slot);
						break
					fi;
#endif
					copy(x);
#ifdef BUG_WIDEN_HOLDS_CLAIM
					if
					:: lo != hi -> held = held | BIT(x); slot = NONE; break
					:: else
					fi;
#endif
					publish(x);
					break
				:: else -> slot_give_back(slot)
				fi
			fi
#endif
		:: ON && COPYING(s) ->
			pass_on();
			if
			:: !COPYING(state[x])
#ifdef RELEASES
			:: !ON
#endif
			fi;
			break
		:: ON && !IN_MEMORY(s) -> break
		fi
	od;
	pass_on();
	atomic { s = 0; won = 0 }
}

#ifdef BUG_CLAIM_FIRST
inline wait_for_slot_holding_claim()
{
	if
	:: slot_event[me]
#ifdef DEADLINE
	:: atomic { !slot_event[me] && policy == BLOCK ->
		policy = FAIL; io_failed = 1; wake_all_waiters() }
#endif
	fi
}
#endif

/* Saves [lo, hi], from either end. */
inline save_range()
{
#if VMA_LIMIT < 255
	atomic {
		if
		:: x = lo; down = 0
#ifdef EITHER_END
		:: lo != hi -> x = hi; down = 1
#endif
		fi
	};
	do
	:: save(x);
		if
		:: !down && x < hi -> x++
		:: down && x > lo -> x--
		:: else -> break
		fi
	od;
#ifdef BUG_WIDEN_HOLDS_CLAIM
	do
	:: held != 0 ->
		x = 0;
		do
		:: !(held & BIT(x)) -> x++
		:: else -> break
		od;
		held = held & ~BIT(x);
		slot = slot_of[x];
		publish(x)
	:: else -> break
	od;
#endif
	atomic { x = 0; down = 0 }
#else
	save(lo)
#endif
}

#ifdef AROUND
/* Makes x safe, but waits for nothing, steals nothing, loses nothing. won: it is safe. */
inline save_at_once(x)
{
	d_step { assert(!freed); s = state[x] };
	if
	:: s == ARMED ->
		slot_take(slot);
		if
		:: slot == NONE
		:: else ->
			step_claim(x, won);
			if
			:: won -> copy(x); publish(x); won = 1
			:: else -> slot_give_back(slot)
			fi
		fi
#ifdef BUG_AROUND_COPYING
	:: COPYING(s) -> won = 1
#endif
#ifdef BUG_AROUND_SWEEPING
	:: s == SWEEPING -> won = 1
#endif
	:: else -> won = !IN_MEMORY(s)
	fi;
	s = 0
}

/* Fault-around: none, some or all of g's neighbours; C decides by what is denser, which promises nothing. */
inline save_around(g)
{
	do
	:: hi < NG - 1 ->
		save_at_once(hi + 1);
		atomic { if :: won -> won = 0; hi++ :: else -> break fi }
	:: break
	od;
	do
	:: lo > 0 ->
		save_at_once(lo - 1);
		atomic { if :: won -> won = 0; lo-- :: else -> break fi }
	:: break
	od
}
#endif

/* Steps 1 to 5. Until mprotect does not give ENOMEM: with the range that widen() finds it cannot. */
inline save_and_make_writable(g)
{
	atomic { lo = g; hi = g };
	do
	:: save_range();
#ifdef AROUND
		if
		:: !wide -> save_around(g)
		:: else
		fi;
#endif
		make_writable(lo, hi, won);
		assert(won || !wide || !ON);    /* widening once is enough */
		if
		:: won -> break
		:: !won && !ON -> break     /* RELEASE will come to it */
		:: !won && ON
		fi;
		widen(g, lo, hi);
		wide = 1
	od;
	atomic { lo = 0; hi = 0; won = 0; wide = 0 }
}

/* The SIGSEGV handler for granule g; ldfs_arena_writable runs the same. Or a sleep till the monitor wakes us. */
inline fault(g)
{
#ifdef UFFD
	sleep_in_store(g)
#elif defined(SIGNALS)
	atomic { sent = sigbus };
	handle(g, sent);
	sent = 0
#elif defined(RELEASES)
	if
	:: atomic { !linked -> skip }       /* no dump: all is writable; try the store again */
	:: atomic { linked -> inside++ };   /* counted in first, then looked */
		d_step { assert(!freed); s = phase };
		if
#ifndef BUG_READY_SAVES
		:: s == PHASE_READY         /* the same */
#endif
		:: s == PHASE_RELEASED ->
			s = 0;
			make_writable(g, g, won)
		:: else ->
			s = 0;
			save_and_make_writable(g)
		fi;
		atomic { s = 0; won = 0; inside-- }
	fi
#else
	save_and_make_writable(g)
#endif
}

/*
 * vCPUs that store once are alike: it is enough to look at runs in which none stores below vCPU 0.
 */
#if STORES == 1 && NV > 1
#define LOWEST lowest
#define PICK(g) if :: me == 0 -> g = lowest :: else -> pick(g) fi
#else
#define LOWEST 0
#define PICK(g) pick(g)
#endif
byte lowest;

inline pick(g)
{
	g = LOWEST;
	do
	:: g < NG - 1 -> g++
	:: break
	od
}

#if VMA_LIMIT < 255
#define WIDEN_LOCALS byte x; bit down;
#else
#define WIDEN_LOCALS
#endif
#ifdef BUG_WIDEN_HOLDS_CLAIM
#define HELD_LOCALS byte held;
#else
#define HELD_LOCALS
#endif
#ifdef SIGNALS
#define SENT_LOCALS bit sent;
#else
#define SENT_LOCALS
#endif
#define HANDLER_LOCALS byte g, s, lo, hi; byte slot = NONE; bit won, wide, woken; WIDEN_LOCALS HELD_LOCALS SENT_LOCALS

proctype vcpu(byte me)
{
	HANDLER_LOCALS
	byte n;
	do
	:: atomic { n < STORES && (!stop || !STOPS(me)) -> running = running + STOPS(me); n++; PICK(g) };
		do
		:: atomic {
			writable[g] ->
			assert(!SEEN || SAFE(g));
#ifdef DISCARDS
			data[g] = 1;
#endif
			mem[g]++;
			running = running - STOPS(me);
			g = 0;
			break
			}
		:: !writable[g] -> fault(g)
		od
	:: atomic { n == STORES -> n = 0; vcpus_ended++; break }
	od
}

/* A thread that calls ldfs_arena_writable, which quiesce does not stop. */
proctype caller(byte me)
{
	HANDLER_LOCALS
	pick(g);
	fault(g);
	atomic { g = 0; vcpus_ended++ }
}

/* ------------------------------------------------------------------- marks */

/*
 * Marks go to the target only when the dump was not released after the states were read: after
 * that, memory can be written before a copy or the sweep's I/O has ended.
 */
inline mark()
{
#ifdef RELEASES
	d_step {
		i = 0;
		marks = 0;
		do
		:: i < NG -> if :: FINAL(state[i]) -> marks = marks | BIT(i) :: else fi; i++
		:: else -> break
		od;
		i = 0
	};
	d_step {
		i = 0;
		do
#ifdef BUG_MARK_RELEASED
		:: i < NG ->
#else
		:: i < NG && ON ->
#endif
			assert(!(marks & BIT(i)) || SAFE(i));
			assert(!(marks & BIT(i)) || state[i] != SAVED || sum[i] == instant[i]);
			i++
		:: else -> break
		od;
		marks = 0
	}
#else
	skip
#endif
}

/* ------------------------------------------------------------------ stream */

#ifdef STREAM
/* One record into the pipe, whose reader may stand still for ever: only RELEASE ends that. */
inline put_record(to, value, good)
{
	if
	:: atomic { !stream_locked && !stream_broken && !cancelled -> to = value; good = 1 }
	:: atomic { !stream_locked && (stream_broken || cancelled) -> stream_broken = 1; good = 0 }
	:: atomic { !stream_locked && !stream_broken && !cancelled -> stream_locked = 1 };
		atomic { cancelled -> stream_broken = 1; stream_locked = 0; good = 0 }
	fi
}
#endif

/* A tick's: a pipe gets the table once, at the drain. */
inline mark_now_and_then()
{
#ifdef STREAM
	skip
#else
	mark()
#endif
}

/* ------------------------------------------------------------------- sweep */

#ifndef RUN
#define RUN 2
#endif

inline sweep_io()
{
	atomic { good = 1; k = first };
#ifdef HANGING_IO
end_hanging: false;
#endif
	do
	:: k < g ->
		atomic {                            /* pwrite and checksum read ... */
			v = mem[k];
#if defined(HOLES) || defined(DISCARDS)
			if                          /* a hole of the memfd, or zeros that exist */
			:: v == ZERO -> holes = holes | BIT(k)
			:: else
			fi;
#endif
#ifndef BUG_SUM_AFTER_STEP
			sum[k] = v
#endif
		};
#ifdef STREAM
		put_record(target[k], v, good);
#endif
		atomic {                            /* ... and pwrite writes */
			assert(state[k] != SAVED && state[k] != HOLE);
#ifndef STREAM
			target[k] = v;
#endif
			v = 0;
#ifdef FAILING_IO
			if
			:: true
			:: good = 0; io_failed = 1
			fi;
#endif
			k++
		}
	:: else -> break
	od
}

inline end_run()
{
	k = first;
	do
	:: k < g ->
		step_sweep_over(k, good, ((holes & BIT(k)) != 0), before);
#ifdef BUG_SUM_AFTER_STEP
		if
		:: before == SWEEPING -> sum[k] = mem[k]
		:: else
		fi;
#endif
		k++
	:: else -> break
	od;
	atomic {
		k = first;
		do
		:: k < g ->
			/* ENOMEM does no harm here: the fault path or the drain does it */
			if
			:: !IN_MEMORY(state[k]) -> make_writable(k, k, won)
			:: else
			fi;
			k++
		:: else -> break
		od
	};
	atomic {
		k = first;
		do
		:: k < g -> wake_waiters_of(k); k++
		:: else -> break
		od;
#ifdef BUG_WAKE_ONE_PACKER
		packer_event[0] = 1;
#else
#ifndef BUG_NO_WAKE_ASIDE
		wake_writer();
#endif
#endif
		before = 0;
		k = 0;
		holes = 0;
		good = 0;
		won = 0
	}
}

#ifdef BUG_DRAIN_BY_QUEUE
#define DRAINED (filled == 0 && !writer_event) /* and the writer sleeps */
#else
#define DRAINED (remaining == 0)
#endif

/* Everything is final: nothing stays protected, and the phase says whether that may be sealed. */
inline drain()
{
	do
	:: atomic {
		if
		:: DRAINED || !ON -> break
#ifdef BUG_DRAIN_BY_QUEUE
		:: else -> DRAINED
#else
		:: else -> drain_event = 0
#endif
		fi
		};
end_drain:	drain_event
	od;
	atomic {
		if
		:: !DRAINED -> skip         /* released */
		:: else ->
			i = 0;
			do
			:: i < NG ->
				assert(FINAL(state[i]) && (SAFE(i) || !ON));
				assert(state[i] != SAVED || sum[i] == instant[i] || !ON);
				assert(state[i] != LOST || io_failed || policy == FAIL);
				i++
			:: else -> break
			od;
			make_writable(0, NG - 1, won);
			assert(won);
			won = 0
		fi
	};
#ifdef STREAM
	if
	:: DRAINED && ON -> put_record(table_out, 1, won); won = 0
	:: !DRAINED || !ON
	fi;
#else
	mark();
#endif
	atomic {
		if
#ifdef BUG_SEAL_RELEASED
		:: DRAINED ->
#else
		:: phase == PHASE_SWEEPING ->
#endif
			i = 0;
			do
			:: i < NG -> assert(FINAL(state[i]) && SAFE(i)); i++
			:: else -> break
			od;
#ifdef STREAM
			assert(table_out);
#endif
			sealed = 1;
			if
			:: phase == PHASE_SWEEPING -> phase = PHASE_DRAINED
			:: else
			fi
		:: else
		fi
	}
}

proctype sweep()
{
	byte g, first, k, v, before, holes, marks;
	bit won, good;
	do
	:: g < NG && ON ->
		first = g;
		do
		:: g < NG && g - first < RUN ->
			step_sweep(g, won);
			if
			:: won -> g++
			:: else -> break
			fi
		:: g == NG || g - first == RUN -> break
		od;
		won = 0;
		if
		:: g == first -> g++
		:: else ->
			sweep_io();
			end_run();
			mark_now_and_then()
		fi
	:: !(g < NG && ON) -> break
	od;
	atomic { g = 0; first = 0 };
	drain();
	sweep_ended = 1
}

/* ------------------------------------------------------------------ writer */

#ifdef BUG_STEAL_UNORDERED
#define MAY_WRITE(slot) true
#else
#define MAY_WRITE(slot) (state[slot_granule[slot]] != STOLEN)
#endif
#define TO_DO (!ON || filled != 0 || \
	((aside & 1) && MAY_WRITE(0)) || (NS > 1 && (aside & 2) && MAY_WRITE(1 % NS)))

inline write_slot()
{
	/* the pwrite; the slot does not change meanwhile */
#ifdef STREAM
	put_record(target[g], slot_bytes[slot], good);
#endif
	atomic {
		assert(!FINAL(state[g]) && !(free_slots & BIT(slot)));
#ifndef STREAM
		target[g] = slot_bytes[slot];
		good = 1;
#endif
		sum[g] = slot_bytes[slot];
#ifdef FAILING_IO
		if
		:: true
		:: good = 0; io_failed = 1; policy = FAIL; wake_all_waiters()
		fi
#endif
	};
#ifdef BUG_SLOT_EARLY
	slot_free(slot);
#endif
#ifdef BUG_STEAL_UNORDERED
	state[g] == IN_SLOT;
#endif
	if
	:: CUT_OFF(good)
	:: else ->
		if
		:: good -> step_saved(g)
		:: else -> step_slot_lost(g)
		fi;
#ifndef BUG_SLOT_EARLY
		slot_free(slot)
#endif
	fi;
	atomic { good = 0; slot = 0; g = 0 }
}

proctype writer()
{
	byte batch, aside, slot, g, marks;
	bit good;
	do
	:: d_step { batch = filled | aside; filled = 0; aside = 0 };
		do
		:: batch != 0 ->
			atomic {
				if
				:: batch & 1 -> slot = 0
				:: batch & 2 -> slot = 1
				fi;
				batch = batch & ~BIT(slot);
				g = slot_granule[slot]
			};
			if
			:: MAY_WRITE(slot) -> write_slot(); mark_now_and_then()
			:: atomic { !MAY_WRITE(slot) -> aside = aside | BIT(slot); slot = 0; g = 0 }
			fi
		:: batch == 0 -> break
		od;
		atomic {
			if
			:: TO_DO -> writer_event = 1
			:: else -> writer_event = 0
			fi
		};
end_writer:	writer_event;
#ifdef RELEASES
		if
		:: !ON -> break
		:: ON
		fi
#endif
	od;
	atomic { batch = 0; aside = 0; writer_ended = 1 }
}

/* ------------------------------- packed targets, and a writer that has a helper */

#ifdef SAVERS
/* What is filled, or a part of it: the other thread may be idle. */
inline take_share()
{
	d_step { batch = filled | aside; filled = 0; aside = 0; any = 0 };
	if
	:: true
	:: NS > 1 && batch == 3 && MAY_WRITE(0) && MAY_WRITE(1) ->
		slot = 1;
		batch = 1;
		slot_push(slot);
		slot = 0
	fi
}

/* Where a granule's bytes are is part of target[]: sweep and slot's writer set it where they write. */
inline write_batch()
{
	do
	:: batch != 0 ->
		atomic {
			if
			:: batch & 1 -> slot = 0
			:: !(batch & 1) -> slot = 1
			fi;
			batch = batch & ~BIT(slot);
			g = slot_granule[slot]
		};
		if
		:: MAY_WRITE(slot) -> write_slot(); mark_now_and_then(); any = 1
		:: atomic { !MAY_WRITE(slot) -> aside = aside | BIT(slot); slot = 0; g = 0 }
		fi
	:: batch == 0 -> break
	od
}

/* Granule `first`, which no other thread will take to sweep. */
inline sweep_piece()
{
	step_sweep(first, won);
	if
	:: won ->
		won = 0;
		sweep_io();
		if
		:: CUT_OFF(good)
		:: else -> end_run(); mark_now_and_then()
		fi
	:: else
	fi;
	atomic { first = 0; g = 0; k = 0; holes = 0; good = 0; won = 0 }
}

/* The next granule that no other thread takes. */
inline sweep_next_piece()
{
	if
	:: atomic { sweep_next < NG && ON -> first = sweep_next; sweep_next++; g = first + 1; any = 1 };
		sweep_piece()
	:: sweep_next >= NG || !ON
	fi
}

inline arm_event(me)
{
	atomic {
		if
		:: TO_DO -> packer_event[me] = 1
		:: else -> packer_event[me] = 0
		fi
	}
}

inline saver_ends()
{
	atomic {
		batch = 0;
		aside = 0;
		any = 0;
		packers_ended++;
		writer_ended = (packers_ended == NP)
	}
}
#endif

#ifdef PACKERS
proctype packer(byte me)
{
	byte batch, aside, slot, g, first, k, v, before, holes, marks;
	bit won, good, any;
	do
	:: take_share();
		write_batch();
		sweep_next_piece();
		if
		:: any
		:: else ->
			arm_event(me);
end_packer:		packer_event[me]
		fi;
#ifdef RELEASES
		if
		:: !ON -> break
		:: ON
		fi
#endif
	od;
	saver_ends()
}

proctype drainer()
{
	byte marks;
	bit won;
	drain();
	sweep_ended = 1
}
#endif

#ifdef HELPER
/* Threads at work measure what they do, and call the helper or send it away (effort.c). */
inline effort()
{
	atomic {
		if
		:: true
		:: called = !called; change_event = change_event || called
		fi
	}
}

proctype writer_of_two()
{
	byte batch, aside, slot, g, marks;
	bit good, any;
	do
	:: take_share();
		write_batch();
		if
		:: any -> effort()
		:: else
		fi;
		arm_event(0);
end_writer:	packer_event[0];
#ifdef RELEASES
		if
		:: !ON -> break
		:: ON
		fi
#endif
	od;
	saver_ends()
}

inline give_back()
{
	do
	:: aside & 1 -> atomic { aside = aside & ~1; slot = 0 }; slot_push(slot)
	:: NS > 1 && (aside & 2) -> atomic { aside = aside & ~2; slot = 1 }; slot_push(slot)
	:: aside == 0 -> break
	od;
	slot = 0
}

/* Sleeps until called. A wake-up for a filled slot that came to it is the writer's. */
inline stand_by()
{
#ifndef BUG_HELPER_LEAVES_SLOTS
	give_back();
#endif
#ifndef BUG_HELPER_KEEPS_WAKE
	atomic {
		if
		:: filled != 0 -> wake_one_packer()
		:: else
		fi
	};
#endif
	change_event = called || !ON;
end_standing_by:
	change_event
}

proctype helper()
{
	byte batch, aside, slot, g, first, k, v, before, holes, marks;
	bit won, good, any;
	do
	:: !called && ON -> stand_by()
	:: called || !ON ->
		take_share();
		write_batch();
		if
		:: called && sweep_next < NG -> give_back(); sweep_next_piece()
		:: !called || sweep_next >= NG
		fi;
		if
		:: any -> effort()
		:: else ->
			arm_event(1);
end_helper:		packer_event[1]
		fi;
#ifdef RELEASES
		if
		:: !ON -> break
		:: ON
		fi
#endif
	od;
	saver_ends()
}

/* The sweep by pieces, which the helper takes too. */
proctype sweep_of_two()
{
	byte g, first, k, v, before, holes, marks;
	bit won, good, any;
	do
	:: sweep_next < NG && ON -> sweep_next_piece(); effort()
	:: !(sweep_next < NG && ON) -> break
	od;
	any = 0;
	drain();
	sweep_ended = 1
}
#endif

/* ----------------------------------------------------------------- readers */

/*
 * What it got is only ever compared, so `wrong` is remembered instead of bytes, and where it looks instead of the state that it
 * saw. A granule's slot_of is written once, before it is published, and its place on the target is not written once it is final:
 * these need no step of their own.
 */
#define MEMORY 1
#define POOL 2

#ifdef ONE_READ
#define PICK_READ(g) g = ONE_READ
#else
#define PICK_READ(g) \
	do \
	:: g < NG - 1 -> g++ \
	:: break \
	od
#endif

inline look_where(g, from, wrong)
{
	if
	:: IN_MEMORY(state[g]) -> from = MEMORY
	:: IN_POOL(state[g]) -> from = POOL
	:: state[g] == SAVED -> from = 0; wrong = (target[g] != instant[g])
	:: state[g] == HOLE -> from = 0; wrong = (instant[g] != ZERO)
	:: state[g] == LOST -> from = 0
	fi
}

inline copy_from(g, from, wrong)
{
	if
	:: from == MEMORY -> wrong = (mem[g] != instant[g])
	:: from == POOL -> wrong = (slot_bytes[slot_of[g]] != instant[g])
	fi
}

#ifdef BUG_READER_CHECKS_BEFORE
#define STILL_THERE(g, from) true
#else
#define STILL_THERE(g, from) ((from) == MEMORY && IN_MEMORY(state[g]) || (from) == POOL && IN_POOL(state[g]))
#endif

inline read_granule()
{
	do
	:: atomic {
			assert(IS_THERE);
			look_where(g, from, wrong);
			if
			:: from == 0 -> break
			:: else
			fi
		};
		d_step { assert(IS_THERE); copy_from(g, from, wrong) };
		atomic {
			assert(IS_THERE);
			if
			:: STILL_THERE(g, from) -> break
			:: else -> wrong = 0; from = 0
			fi
		}
	od
}

proctype reader()
{
	byte g, from;
	bit wrong;
#ifdef RELEASES
	atomic { PICK_READ(g); readers++ };
	if
	:: phase == PHASE_RELEASED || phase == PHASE_READY -> goto over
	:: else
	fi;
#else
	atomic { PICK_READ(g) };
#endif
	read_granule();
over:	atomic {
#ifdef BUG_NO_PHASE_AFTER_COPY
		assert(!wrong);
#else
		assert(!ON || !wrong);
#endif
#ifdef RELEASES
		readers--;
#endif
		g = 0; from = 0; wrong = 0
	}
}

#ifdef LATE_READERS
#ifdef BUG_READERS_UNCOUNTED
#define COUNT_READER(n, by) skip
#else
#define COUNT_READER(n, by) n = n + (by)
#endif

/* Two reads by a handle of the first dump, whenever: livedumpfs/dump/core_dump.py asks the handle, then ldfs_dump_read counts itself in. */
proctype late_reader()
{
	byte g, from, n;
	bit wrong, there;
	do
	:: n < 2 ->
		atomic { n++; there = !closed; if :: there -> COUNT_READER(users, 1) :: else fi };
		if
		:: !there
		:: there ->
			COUNT_READER(readers, 1);
			d_step { assert(IS_THERE); there = (phase != PHASE_RELEASED && phase != PHASE_READY) };
			if
			:: there -> read_granule()
			:: else
			fi;
			atomic {
				assert(IS_THERE);
				assert(!ON || !wrong);
				COUNT_READER(readers, -1);
				there = 0; from = 0; wrong = 0
			};
			COUNT_READER(users, -1)
		fi
	:: else -> break
	od
}
#endif

/* ------------------------------------------------------------------- owner */

/* INIT: a new dump, which no handler can find yet. */
inline initialise()
{
	d_step {
		assert(inside == 0 || !linked);
		k = 0;
		do
		:: k < NG ->
			state[k] = ARMED;
			target[k] = NOTHING;
			sum[k] = NOTHING;
			slot_of[k] = 0;
			k++
		:: else -> break
		od;
		k = 0;
		free_slots = ALL_SLOTS;
		filled = 0;
		remaining = NG;
		freed = 0;
		writer_ended = 0;
		sweep_ended = 1;
		phase = PHASE_READY
	}
}

/* What the dump is to show, from here on: no vCPU runs. */
inline take_instant()
{
	d_step {
		i = 0;
		do
		:: i < NG -> instant[i] = mem[i]; i++
		:: else -> break
		od;
		i = 0
	}
}

inline arm()
{
	d_step {
		i = 0;
		do
		:: i < NG -> writable[i] = 0; i++
		:: else -> break
		od;
		i = 0
	}
}

/* Memory becomes writable piece by piece; a piece of one granule here. */
inline unprotect_all()
{
	k = 0;
	do
#ifdef UFFD
	/* EAGAIN is tried again: the monitor reads the event */
	:: k < NG -> atomic { !moving -> unprotect(k); k++ }
#else
	:: k < NG -> d_step { writable[k] = 1; k++ }
#endif
	:: else -> break
	od;
	k = 0
}

/* No dump is armed any more. */
inline disarm()
{
#ifdef BUG_FORGET_FIRST
	forget();
#endif
	unprotect_all();
#if defined(UFFD) && !defined(BUG_FORGET_FIRST)
	forget();
#endif
#ifndef BUG_UNLINK_LATE
	linked = 0
#endif
}

inline release()
{
#ifdef BUG_CANCEL_FIRST
	cancelled = 1;
#endif
#ifdef SIGNALS
	d_step { overtakes = (phase == PHASE_READY); phase = PHASE_RELEASED };
#else
	phase = PHASE_RELEASED;
#endif
#if defined(STREAM) && !defined(BUG_NO_CANCEL)
	cancelled = 1;              /* before the wake-ups: no thread goes on to wait for the pipe */
#endif
#ifdef BUG_RELEASE_NO_SLOT_WAKE
	atomic { wake_writer(); drain_event = 1 };
#else
	atomic { wake_writer(); drain_event = 1; wake_all_waiters() };
#endif
#ifdef HELPER
	change_event = 1;
#endif
#if defined(SIGNALS)
	if
	:: overtakes -> !linked     /* START disarms, if it has begun */
	:: !overtakes && linked -> disarm()
	:: !overtakes && !linked
	fi;
#elif defined(UFFD)
	if                          /* START may not have begun */
	:: linked -> disarm()
	:: !linked
	fi;
#else
	disarm();
#endif
	inside == 0;
#ifdef BUG_UNLINK_LATE
	linked = 0;
#endif
	readers == 0;
	writer_ended && sweep_ended;
#ifdef LATE_READERS
	closed = 1;                 /* free: no new call finds it, and those under way end */
	users == 0;
#endif
#if !defined(DISCARDS) && !defined(UFFD) && !defined(SIGNALS)   /* these free it by themselves */
	freed = 1
#endif
}

inline set_up()
{
	d_step {
		i = 0;
		do
		:: i < NG ->
			mem[i] = FIRST_CELL(i);
			instant[i] = mem[i];
			target[i] = NOTHING;
			sum[i] = NOTHING;
			i++
		:: else -> break
		od;
		i = 0
	};
	do
	:: STORES == 1 && NV > 1 && lowest < NG - 1 -> lowest++
	:: break
	od
}
