/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two handlers that save their neighbours along, sweep and writer. */
#define NG 2
#define NS 2
#define NV 2
#define AROUND
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run vcpu(1); run sweep(); run writer() };
	all_ends()
}
