/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A reader beside it all; the one slot is used again and again; granule 0 may be a hole. */
#define NG 2
#define NS 1
#define NV 1
#define STORES 2
#define HOLES
#define RUN 1
#include "protocol.pml"
#include "ends.pml"

init {
	atomic { set_up(); run vcpu(0); run sweep(); run writer(); run reader() };
	all_ends()
}
