/* SPDX-License-Identifier: GPL-2.0-or-later */
/* userfaultfd: a dump to its end, with two vCPUs behind the monitor, one slot, sweep and writer. */
#ifndef NG
#define NG 1
#endif
#define NS 1
#define NV 2
#ifndef STORES
#define STORES 1
#endif
#define UFFD
#define RUN 1
#include "protocol.pml"
#include "monitor.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run vcpu(1); run monitor(2); run sweep(); run writer() };
	vcpus_ended == NV && sweep_ended;
	close();
	all_ends()
}
