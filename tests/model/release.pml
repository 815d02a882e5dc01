/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RELEASE at any moment before SWEEP: two handlers and the writer at work. */
#define NG 1
#define NS 1
#define NV 2
#define STORES 2
#define RELEASES
#define FIRST_PHASE PHASE_ARMED
#include "protocol.pml"
#include "ends.pml"

init {
	byte k;
	atomic { set_up(); sweep_ended = 1; run vcpu(0); run vcpu(1); run writer() };
	release();
	vcpus_ended == NV;
	assert(inside == 0)
}
