/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The handler's own copy may fail, before and during a steal. */
#define NG 2
#define NS 1
#define NV 1
#define STORES 2
#define FAILING_COPY
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run sweep(); run writer() };
	all_ends()
}
