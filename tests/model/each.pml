/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A slot for each granule, under `fail`: a thread that finds none looks again, and nothing is lost. */
#define NG 1
#define NS 1
#define NV 2
#include "protocol.pml"
#include "ends.pml"

init {
	atomic {
		set_up();
		policy = FAIL;
		run vcpu(0);
		run vcpu(1);
		run sweep();
		run writer()
	};
	all_ends();
	assert(state[0] != LOST)
}
