/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Three vCPUs want the same granule, there is one slot, and no I/O ever comes back: a vCPU that
 * found no slot is freed by the other's publish, without a deadline.
 */
#define NG 1
#define NS 1
#define NV 3
#define HANGING_IO
#define FIRST_PHASE PHASE_ARMED
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run vcpu(1); run vcpu(2) };
	vcpus_ended == NV
}
