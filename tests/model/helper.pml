/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A writer and a sweep with a helper that is called and sent away at any time; one vCPU that stores twice. */
#define NG 2
#define NS 2
#define NV 1
#define STORES 2
#define HELPER
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run writer_of_two(); run sweep_of_two(); run helper() };
	all_ends()
}
