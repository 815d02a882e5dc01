/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two handlers that save their neighbours along, sweep and writer. How many slots C leaves to others is only one of the
 * choices here: the last one may always be taken. Where fewer slots than granules are (NS=1), some thread waits (BLOCK).
 */
#define NG 2
#ifndef NS
#define NS 2
#endif
#ifndef POLICY
#define POLICY BLOCK
#endif
#define NV 2
#define AROUND
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); policy = POLICY; run vcpu(0); run vcpu(1); run sweep(); run writer() };
	all_ends()
}
