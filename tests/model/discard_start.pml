/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A discard at any moment of INIT and START and after it, with a vCPU, the writer and a reader. No sweep
 * comes: what no store or discard saved is still armed, and has the bytes of the instant.
 */
#define NG 1
#define NS 1
#define NV 1
#define RELEASES
#define DISCARDS
#define PUNCHES 1
#define FIRST_PHASE PHASE_READY
#include "protocol.pml"
#include "punch.pml"

init {
	byte k;
	bit seen;
	atomic {
		set_up();
		unprotect_all();
		linked = 0;
		run vcpu(0);
		run discarder(1)
	};
	init_dump();
	run writer();
	start_dump();
	run reader();
	discarded && vcpus_ended == NV && free_slots == ALL_SLOTS;
	assert(inside == 0);
	assert(SAFE(0) || (state[0] == ARMED && mem[0] == instant[0]))
}
