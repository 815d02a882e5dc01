/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A pool that the keeper lets grow from one slot to NS, where memory may fail. With as many slots as stores nothing is lost,
 * and no vCPU sleeps for ever. Without a target, which never frees a slot, a growth that fails loses what has none; with one
 * (TARGET) a vCPU that stores waits for the writer then, and nothing is lost. SHRINKS: pool auto on a target; once in a
 * while the keeper takes a free slot away again, and what it has taken is made again when it is wanted.
 */
#ifndef NG
#define NG 3
#endif
#ifndef NS
#define NS 2
#endif
#ifndef NV
#define NV 2
#endif
#define SPILL
#define MADE 1
#define SLOTS_AT_FIRST 1
#define FIRST_PHASE PHASE_ARMED
#include "protocol.pml"
#include "ends.pml"

#ifdef SHRINKS
byte away;                  /* slots that have no memory: bit mask */
byte shrinks = SHRINKS;     /* so often, so that runs end */
#define STAYS true
#define NEXT_SLOT ((away & 1) -> 0 : ((away & 2) -> 1 : ((away & 4) -> 2 : made)))
#else
#define STAYS false
#define NEXT_SLOT made
#endif

/* In slots: a push, then the count, then the wake-up. */
inline grow()
{
	if
	:: d_step {
			i = NEXT_SLOT;
			free_slots = free_slots | BIT(i);
#ifdef SHRINKS
			away = away & ~BIT(i);
#endif
			i = 0
		};
		made++;
		atomic { wake_one_waiter() }
#ifdef SHRINKS
	:: low_event = 1                /* no memory now: it looks again */
#else
	:: atomic { growth_failed = 1; limit = made };
#ifndef BUG_NO_WAKE_AT_LIMIT
		atomic { wake_all_waiters() }
#endif
#endif
	fi
}

#ifdef SHRINKS
/* A free slot is popped, and is the keeper's own; then the count. What INIT made stays. */
inline shrink()
{
	d_step {
		i = 0;
		do
		:: i < NS && !(free_slots & BIT(i)) -> i++
		:: else -> break
		od;
#ifdef BUG_SHRINK_IN_USE
		i = made - 1;
#endif
		if
		:: i < NS ->
			free_slots = free_slots & ~BIT(i);
			slot_bytes[i] = NOTHING;
			away = away | BIT(i);
			made--
		:: else
		fi;
		shrinks--;
		i = 0
	}
}
#endif

proctype keeper()
{
	do
	:: CAN_GROW || STAYS ->
		low_event = 0;
		if
		:: CAN_GROW && USED >= made -> low_event = 1; grow()
		:: else ->
end_keeper:		if
			:: low_event
#ifdef SHRINKS
			:: atomic { shrinks > 0 && made > MADE -> shrink() }
#endif
			fi
		fi
	:: else -> break
	od
}

init {
	atomic { set_up(); run vcpu(0); run vcpu(1) };
	atomic {
		if
		:: NV == 3 -> run vcpu(2)
		:: else
		fi;
#ifdef TARGET
		run writer();
#endif
		run keeper()
	};
	vcpus_ended == NV;
	d_step {
		i = 0;
		do
		:: i < NG -> assert(state[i] == ARMED || SAFE(i)); i++
		:: else -> break
		od
	}
}
