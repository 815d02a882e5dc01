/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RELEASE at any moment with sweep, drain and a reader under way. */
#define NG 1
#define NS 1
#define NV 1
#define RELEASES
#define RUN 1
#include "protocol.pml"
#include "ends.pml"

init {
	byte k;
	atomic { set_up(); run vcpu(0); run sweep(); run writer(); run reader() };
	release();
	vcpus_ended == NV;
	assert(inside == 0)
}
