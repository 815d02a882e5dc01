/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two packers whose I/O fails at any time, deadlines that pass; one vCPU, two granules, one slot. */
#define NG 2
#define NS 1
#define NV 1
#define PACKERS
#define FAILING_IO
#define DEADLINE
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run packer(0); run packer(1); run drainer() };
	all_ends()
}
