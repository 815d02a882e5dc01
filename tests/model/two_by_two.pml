/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two vCPUs, sweep and writer; two granules, two slots. */
#define NG 2
#define NS 2
#define NV 2
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run vcpu(1); run sweep(); run writer() };
	all_ends()
}
