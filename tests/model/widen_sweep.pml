/* SPDX-License-Identifier: GPL-2.0-or-later */
/* It leaves two VMAs: handlers reach for a writable neighbour; the sweep's own mprotect may fail. */
#define NG 3
#define NS 1
#define NV 1
#define STORES 2
#define VMA_LIMIT 2
#define RUN 3
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run sweep(); run writer() };
	all_ends()
}
