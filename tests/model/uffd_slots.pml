/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * userfaultfd under `block`: the monitor waits for the one slot, and two vCPUs behind it. Either no RELEASE comes
 * and no sweep, and all stores end; or RELEASE comes at any moment.
 */
#define NG 2
#define NS 1
#define NV 2
#ifndef STORES
#define STORES 1
#endif
#define RELEASES
#define UFFD
#define FIRST_PHASE PHASE_ARMED
#include "protocol.pml"
#include "monitor.pml"

init {
	byte k;
	atomic { set_up(); sweep_ended = 1; run vcpu(0); run vcpu(1); run monitor(2); run writer() };
	if
	:: true -> vcpus_ended == NV && free_slots == ALL_SLOTS
	:: true
	fi;
	release();
	nobody_sleeps();
	vcpus_ended == NV;
	free_dump();
	close();
	assert(inside == 0)
}
