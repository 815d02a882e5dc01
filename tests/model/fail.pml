/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Either policy, deadlines that pass, I/O that fails: a granule that is lost says so, and everything ends. */
#define NG 2
#define NS 1
#ifndef NV
#define NV 2
#endif
#define DEADLINE
#define FAILING_IO
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); if :: policy = FAIL :: true fi; run vcpu(0); if :: NV > 1 -> run vcpu(1) :: else fi; run sweep(); run writer() };
	all_ends()
}
