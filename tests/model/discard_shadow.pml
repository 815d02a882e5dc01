/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Discards against INIT and START of dumps whose backends may differ. A punch takes userfaultfd's protection
 * of the shadow's page with it: what START puts in place is whole, or START says that it is not. Two calls of
 * the kernel may fail; then START is tried again, or the dump is released and the next one made.
 */
#ifndef NG
#define NG 1
#endif
#define NS NG
#define NV 1
#define RELEASES
#define DISCARDS
#define SHADOW
#ifndef PUNCHES
#define PUNCHES 2
#endif
#ifndef FAILURES
#define FAILURES 2
#endif
#define FIRST_PHASE PHASE_READY
#include "protocol.pml"
#include "punch.pml"

inline protect_pages(protected)
{
	k = 0;
	do
	:: k < NG && rc == 0 ->
		if
		:: shadow_wp[k] = protected; k++
		:: atomic { failures > 0 -> failures--; rc = 1 }
		fi
	:: else -> break
	od;
	k = 0
}

/* Part of INIT. Said before the first page: a thread that punches and does not see it has punched before that. */
inline prepare_shadow()
{
#ifndef BUG_TORN_STAYS
	torn = 0;
#endif
	if
	:: uffd ->
#ifdef BUG_TORN_STAYS
		torn = 0;
#endif
#ifndef BUG_GUARDED_LATE
		guarded = 1;
#endif
		protect_pages(1);
#ifdef BUG_GUARDED_LATE
		guarded = 1;
#endif
	:: !uffd -> protect_pages(0)
	fi;
	if
	:: rc != 0 -> guarded = 0
	:: else
	fi
}

/* The two mremaps: what was live goes away, and the shadow takes its place with the protection that it has. */
inline swap()
{
	if
#ifndef BUG_TORN_IGNORED
	:: torn -> assert(tore && uffd); rc = 2
	:: !torn ->
#else
	:: true ->
#endif
#ifdef BUG_GUARDED_CLEARED_EARLY
		guarded = 0;
#endif
		if
		:: atomic {
				take_instant();
				arm();
				do
				:: k < NG ->
					writable[k] = uffd && !shadow_wp[k];
					shadow_wp[k] = 0;   /* the next shadow is another mapping */
					k++
				:: else -> break
				od;
				k = 0
			};
			guarded = 0
		:: atomic { failures > 0 -> failures--; rc = 1 }
		fi
	fi
}

/* rc 1: START may be tried again; 2: not with this shadow. */
inline start_swapped()
{
	stop = 1;
	running == 0;
	linked = 1;
	inside == 0;
	swap();
	if
	:: rc == 0 -> phase = PHASE_ARMED
	:: else -> unprotect_all(); linked = 0
	fi;
	stop = 0
}

init {
	byte k, rc;
	bit seen;
	atomic {
		set_up();
		unprotect_all();
		linked = 0;
		run vcpu(0);
		run discarder(1)
	};
	do
	:: atomic {
			tore = 0;
			if
			:: uffd = 1
			:: uffd = 0
			fi
		};
		init_dump();
		prepare_shadow();
		if
		:: rc != 0 -> phase = PHASE_RELEASED; free_dump(); rc = 0
		:: else ->
			run writer();
			do
			:: start_swapped();
				if
				:: rc == 1 -> rc = 0
				:: else -> break
				fi
			od;
			if
			:: rc == 0 -> break
			:: else -> rc = 0; release(); free_dump()
			fi
		fi
	od;
	discarded && vcpus_ended == NV && free_slots == ALL_SLOTS;
	d_step {
		assert(inside == 0);
		do
		:: k < NG -> assert(SAFE(k) || (state[k] == ARMED && mem[k] == instant[k])); k++
		:: else -> break
		od
	}
}
