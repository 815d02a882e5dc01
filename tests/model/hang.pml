/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Neither the sweep's nor the writer's I/O ever comes back: no vCPU hangs. */
#define NG 3
#define NS 1
#define NV 2
#define DEADLINE
#define HANGING_IO
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run vcpu(1); run sweep() };
	vcpus_ended == NV;
	assert(!sealed)
}
