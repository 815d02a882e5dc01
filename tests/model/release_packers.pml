/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RELEASE at any moment while two packers write slots, and sweep. */
#define NG 1
#define NS 1
#define NV 1
#define RELEASES
#define RUN 1
#define PACKERS
#include "protocol.pml"
#include "ends.pml"

init {
	byte k;
	atomic { set_up(); run vcpu(0); run packer(0); run packer(1); run drainer() };
	release();
	vcpus_ended == NV;
	assert(inside == 0)
}
