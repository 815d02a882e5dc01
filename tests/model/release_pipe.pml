/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RELEASE at any moment while two packers put records into a pipe whose reader may stand still. */
#ifndef NG
#define NG 2
#endif
#define NS 1
#define NV 1
#ifndef NP
#define NP 1
#endif
#define RELEASES
#define RUN 1
#define PACKERS
#define STREAM
#include "protocol.pml"
#include "ends.pml"

init {
	byte k;
	atomic { set_up(); run vcpu(0); run packer(0); run drainer() };
	atomic {
		if
		:: NP == 2 -> run packer(1)
		:: else
		fi
	};
	release();
	vcpus_ended == NV;
	assert(inside == 0)
}
