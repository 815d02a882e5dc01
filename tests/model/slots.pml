/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Three vCPUs want one slot, and no sweep comes to help: no wake-up is lost. */
#define NG 2
#define NS 1
#define NV 3
#define FIRST_PHASE PHASE_ARMED
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run vcpu(1); run vcpu(2); run writer() };
	vcpus_ended == NV && free_slots == ALL_SLOTS
}
