/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Policy spill: a pool that the keeper lets grow from one slot to NS, where memory may fail. With as many slots as stores
 * nothing is lost, and nobody sleeps for ever. Without a target, which never frees a slot, a growth that fails loses what has
 * none; with one (TARGET) who stores waits for the writer then, and nothing is lost.
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

/* In slots: a push, then the count, then the wake-up. */
inline grow()
{
	if
	:: free_slots = free_slots | BIT(made);
		made++;
		atomic { wake_one_waiter() }
	:: atomic { growth_failed = 1; limit = made };
#ifndef BUG_NO_WAKE_AT_LIMIT
		atomic { wake_all_waiters() }
#endif
	fi
}

proctype keeper()
{
	do
	:: CAN_GROW ->
		low_event = 0;
		if
		:: USED >= made -> low_event = 1; grow()
		:: else ->
end_keeper:		low_event
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
