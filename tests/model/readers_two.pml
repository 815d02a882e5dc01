/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two vCPUs and a reader beside sweep and writer: a granule has a slot each, or (NS=1; NG=3, NS=1) wait for the one. One granule is read. */
#ifndef NG
#define NG 2
#endif
#ifndef NS
#define NS 2
#endif
#define NV 2
#ifndef ONE_READ
#define ONE_READ 0
#endif
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run vcpu(1); run sweep(); run writer(); run reader() };
	all_ends()
}
