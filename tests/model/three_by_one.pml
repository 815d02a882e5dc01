/* SPDX-License-Identifier: GPL-2.0-or-later */
/* More granules than slots, runs of two granules: a thread that wants a slot waits for another's. */
#define NG 3
#define NS 1
#define NV 2
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run vcpu(1); run sweep(); run writer() };
	all_ends()
}
