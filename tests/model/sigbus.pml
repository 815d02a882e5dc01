/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dumps by SIGBUS and by SIGSEGV in turns: RELEASE at any moment, also of START; then the next dump, by either, whose
 * stores end without sweep or RELEASE. The handler of a store that an earlier dump stopped may come late. vCPU 1
 * stores while the machine stands. No writer is needed: there are as many slots as granules.
 */
#define NG 1
#define NS 1
#define NV 2
#ifndef STORES
#define STORES 2
#endif
#define RELEASES
#define SIGNALS
#define FIRST_PHASE PHASE_READY
#include "protocol.pml"

bit released;

proctype releaser()
{
	byte k;
	release();
	released = 1
}

init {
	byte k;
	atomic {
		set_up();
		unprotect_all();
		linked = 0;
		run vcpu(0);
		run vcpu(1);
		run event_reader()
	};
	next_dump();
	run releaser();
	start_swapped();
	released;
	free_dump();
	next_dump();
	start_swapped();
	vcpus_ended == NV;
	assert(SAFE(0) || (state[0] == ARMED && mem[0] == instant[0]));
	release();
	free_dump();
	closing = 1;
	assert(inside == 0)
}
