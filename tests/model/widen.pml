/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vm.max_map_count leaves the arena one VMA: handlers widen over all of it, from either end. */
#define NG 3
#define NV 2
#define FIRST_PHASE PHASE_ARMED
#define VMA_LIMIT 1
#define EITHER_END
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run vcpu(1); run writer() };
	vcpus_ended == NV && free_slots == ALL_SLOTS
}
