/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A discard during a dump: against a vCPU that stores to the same memory, sweep and writer; by make model a reader, too. */
#ifndef NG
#define NG 1
#endif
#define NS 1
#define NV 1
#define DISCARDS
#define PUNCHES 1
#define RUN 1
#ifndef READERS
#define READERS 0
#endif
#include "protocol.pml"
#include "punch.pml"
#include "ends.pml"

init {
	atomic {
		set_up();
		owned = 1;
		run vcpu(0);
		run discarder(1);
		run sweep();
		run writer()
	};
	atomic {
		if
		:: READERS -> run reader()
		:: else
		fi
	};
	discarded;
	all_ends()
}
