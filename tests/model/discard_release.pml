/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A discard at any moment of a dump, of its RELEASE and free, and of the next dump's INIT and START. */
#define NG 1
#define NS 1
#define NV 1
#define RELEASES
#define DISCARDS
#ifndef PUNCHES
#define PUNCHES 2
#endif
#define FIRST_PHASE PHASE_ARMED
#include "protocol.pml"
#include "punch.pml"

init {
	byte k;
	bit seen;
	atomic {
		set_up();
		owned = 1;
		sweep_ended = 1;
		run vcpu(0);
		run discarder(1);
		run writer()
	};
	release();
	free_dump();
	init_dump();
	run writer();
	start_dump();
	discarded && vcpus_ended == NV && free_slots == ALL_SLOTS;
	assert(inside == 0);
	assert(SAFE(0) || (state[0] == ARMED && mem[0] == instant[0]))
}
