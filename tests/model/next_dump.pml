/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RELEASE at any moment, then the next dump of the same arena, whose START may fail once. A vCPU
 * whose fault was delivered before, and a thread in ldfs_arena_writable that no quiesce stops, come
 * late: they never make the next dump's memory writable unsaved, and never meet a freed dump.
 */
#define NG 1
#define NS 1
#define NV 2
#define STORES 2
#define RELEASES
#define FIRST_PHASE PHASE_READY
#include "protocol.pml"
#include "ends.pml"

/* START: the dump is linked while the machine stands, and becomes a dump to save for by its phase. */
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

inline start_fails()
{
	stop = 1;
	running == 0;
	take_instant();
	linked = 1;
	unprotect_all();
	linked = 0;
	stop = 0
}

init {
	byte k;
	atomic {
		set_up();
		unprotect_all();
		linked = 0;
		run vcpu(0);
		run caller(1);
		initialise();
		run writer()
	};
	start();
	release();
	initialise();
	run writer();
	if
	:: start_fails()
	:: true
	fi;
	start();
	atomic { sweep_ended = 0; phase = PHASE_SWEEPING; run sweep() };
	vcpus_ended == NV && sweep_ended;
	assert(sealed);
	release()
}
