/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A reader by the first dump's handle, that may be late: RELEASE and free of that dump at any moment, then INIT and START of the
 * next one, with a vCPU that stores. It gets bytes of its own instant or none, and never meets the next dump.
 */
#define NG 1
#define NS 1
#define NV 1
#define STORES 2
#define RELEASES
#define LATE_READERS
#define FIRST_PHASE PHASE_READY
#include "protocol.pml"
#include "ends.pml"

inline start()
{
	stop = 1;
	running == 0;
	take_instant();
	linked = 1;
	arm();
	phase = PHASE_ARMED;
	stop = 0
}

init {
	byte k;
	atomic {
		set_up();
		unprotect_all();
		linked = 0;
		run vcpu(0);
		run late_reader();
		initialise();
		run writer()
	};
	start();
	release();
	atomic { initialise(); generation = 2 };
	run writer();
	start();
	vcpus_ended == NV && free_slots == ALL_SLOTS;
	assert(SAFE(0) || (state[0] == ARMED && mem[0] == instant[0]))
}
