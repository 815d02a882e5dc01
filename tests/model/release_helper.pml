/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RELEASE at any moment while sweep, writer and helper save. */
#define NG 1
#define NS 1
#define NV 1
#define RELEASES
#define RUN 1
#define HELPER
#include "protocol.pml"
#include "ends.pml"

init {
	byte k;
	atomic { set_up(); run vcpu(0); run writer_of_two(); run sweep_of_two(); run helper() };
	release();
	vcpus_ended == NV;
	assert(inside == 0)
}
