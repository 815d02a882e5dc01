/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tell.c - one line on stderr of a forked child that is about to die of a fault in its parent's
 * arena. [signal]
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fault/within.h"

void ldfs_child_tell(const siginfo_t *info)
{
	static const char text[] = "livedumpfs: this child process ends by SIGSEGV: it has no view "
				   "of its own of its parent's arena, or can "
				   "only read it (see ulimit -v, vm.overcommit_memory, free huge "
				   "pages; a child that fork(2) did not make has none)\n";
	uintptr_t address = (uintptr_t)info->si_addr;
	uint32_t used = load_seq(&ldfs_fault_seats_used);

	if (info->si_signo != SIGSEGV ||
	    (info->si_code != SEGV_MAPERR && info->si_code != SEGV_ACCERR))
		return;
	for (uint32_t i = 0; i < used; i++) {
		const struct ldfs_fault_seat *seat = &ldfs_fault_seats[i];
		const ldfs_arena *a;

		if (address < load_seq(&seat->start) || address >= load_seq(&seat->end))
			continue;
		a = load_seq(&seat->arena);
		if (!a || ldfs_arena_foreign(a))
			syscall(SYS_write, STDERR_FILENO, text, sizeof(text) - 1);
		return;
	}
}
