/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A packed target: two packers, each writer and sweeper; one vCPU that stores twice, two granules. */
#define NG 2
#define NS 2
#define NV 1
#define STORES 2
#define PACKERS
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run packer(0); run packer(1); run drainer() };
	all_ends()
}
