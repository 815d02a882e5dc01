/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * punch.pml - ldfs_arena_discard, and the INIT, START and free of the dump that it may meet. A discard
 * saves as a store does, then punches, and is counted in until it has done both.
 */

#define FULL 1
#define PUNCHED 2

bit owned;                  /* the arena has a dump: from INIT until it is freed */
byte fill[NG];              /* ldfs_dump.full. FULL: no hole, so that it may be read through a view */
bit discarded;              /* the discarder has ended */
#ifdef SHADOW
bit uffd;                   /* backend of this dump */
bit shadow_wp[NG];          /* userfaultfd protects the shadow's page */
bit guarded;                /* ldfs_arena.shadow_guarded */
bit torn;                   /* ldfs_arena.shadow_torn */
bit tore;                   /* ghost: a page of this dump's shadow could not be protected again */
byte failures = FAILURES;   /* how many calls of the kernel may still fail */
#endif

/* ------------------------------------------------------------------ discard */

/* As a store: never before the bytes of the instant are safe. */
inline punch(g)
{
	d_step {
		assert(!SEEN || SAFE(g));
		mem[g] = ZERO;
		data[g] = 0;
#ifdef SHADOW
		shadow_wp[g] = 0    /* the kernel takes it with the page */
#endif
	}
}

#ifdef SHADOW
/* While INIT has not said that it guards the shadow, it protects all of it later. */
inline protect_punched(g)
{
	d_step { assert(!freed); s = phase };
	if
	:: uffd && s == PHASE_READY && guarded ->
		if
		:: shadow_wp[g] = 1
		:: atomic { failures > 0 -> failures--; torn = 1; tore = 1 }
		fi
	:: else
	fi;
	s = 0
}
#endif

/* Ends counted in. A START that is at work is waited for uncounted: it waits for the threads that are inside. */
inline enter_and_save(g)
{
	do
	:: inside++;
		if
		:: !linked -> break
		:: linked
		fi;
		d_step { assert(!freed); s = phase };
		if
#ifdef BUG_DISCARD_READY
		:: s == PHASE_READY -> break
#else
#ifdef BUG_DISCARD_STAYS
		:: s == PHASE_READY -> phase != PHASE_READY || !linked; inside--
#else
		:: s == PHASE_READY -> inside--
#endif
#endif
		:: else -> save_and_make_writable(g); break
		fi
	od;
	atomic { s = 0; won = 0 }
}

inline leave()
{
	inside--
}

inline discard(g)
{
#ifdef BUG_PUNCH_FIRST
	punch(g);
#endif
	enter_and_save(g);
#ifdef BUG_LEAVES_BEFORE_PUNCH
	leave();
#endif
	own = owned;
	if
	:: own -> d_step { assert(!freed); fill[g] = PUNCHED }
	:: else
	fi;
#ifndef BUG_PUNCH_FIRST
	punch(g);
#endif
#if defined(SHADOW) && !defined(BUG_NO_REPROTECT)
	if
	:: own -> protect_punched(g)
	:: else
	fi;
#endif
#ifndef BUG_LEAVES_BEFORE_PUNCH
	leave();
#endif
	own = 0
}

proctype discarder(byte me)
{
	HANDLER_LOCALS
	byte n;
	bit own;
	do
	:: atomic { n < PUNCHES -> n++; pick(g) };
		discard(g)
	:: atomic { n == PUNCHES -> n = 0; g = 0; break }
	od;
	discarded = 1
}

/* -------------------------------------------------------------------- owner */

/* Which granules have no hole now. Not over a discard's mark: it may punch what was just seen as data. */
inline find_full()
{
	k = 0;
	do
	:: k < NG ->
		seen = data[k];
		d_step {
			if
#ifdef BUG_FULL_OVER_PUNCHED
			:: seen -> fill[k] = FULL
#else
			:: seen && fill[k] == 0 -> fill[k] = FULL
#endif
			:: else
			fi;
			seen = 0;
			k++
		}
	:: else -> break
	od;
	k = 0
}

/* A discard that found no owner just before may not have punched yet. */
inline init_dump()
{
	atomic {
		initialise();
		k = 0;
		do
		:: k < NG -> fill[k] = 0; k++
		:: else -> break
		od;
		k = 0;
		owned = 1
	};
#ifndef BUG_INIT_NO_WAIT
	inside == 0;
#endif
	find_full()
}

/* Links first: a discard that saw no dump is before the instant as a whole, any later one saves. */
inline start_dump()
{
	stop = 1;
	running == 0;
	linked = 1;
#ifndef BUG_START_NO_WAIT
	inside == 0;
#endif
	atomic {
		take_instant();
		arm();
		do
		:: k < NG -> assert(fill[k] != FULL || data[k]); k++
		:: else -> break
		od;
		k = 0
	};
	phase = PHASE_ARMED;
	stop = 0
}

/* A discard may have found the owner just before. */
inline free_dump()
{
	owned = 0;
#ifndef BUG_FREE_AT_ONCE
	inside == 0;
#endif
	freed = 1
}
