/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * userfaultfd: RELEASE at any moment, also of START, with stores queued or being served; then the next dump,
 * whose stores end without sweep or RELEASE; then the end of the arena. vCPU 1 stores while the machine stands.
 * No writer is needed: there are as many slots as granules.
 */
#define NG 1
#define NS 1
#define NV 2
#ifndef STORES
#define STORES 2
#endif
#define RELEASES
#define UFFD
#define FIRST_PHASE PHASE_READY
#include "protocol.pml"
#include "monitor.pml"

bit started, released;

proctype releaser()
{
	byte k;
	bit whole;
	whole = started;        /* no START is at work beside us */
	release();
	if
	:: whole -> nobody_sleeps() /* it needs no monitor for that */
	:: else
	fi;
	released = 1
}

init {
	byte k;
	atomic {
		set_up();
		registered = 0;
		forget();
		linked = 0;
		run vcpu(0);
		run vcpu(1);
		run monitor(2);
		initialise();
		writer_ended = 1;
		run releaser()
	};
	start_swapped();
	started = 1;
	released;
	free_dump();
	initialise();
	inside == 0;
	writer_ended = 1;
	start_swapped();
	vcpus_ended == NV;
	assert(SAFE(0) || (state[0] == ARMED && mem[0] == instant[0]));
	release();
	nobody_sleeps();
	free_dump();
	close();
	assert(inside == 0)
}
