/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_kernel.c - the system calls by which threads of the core meet. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "world_parts.h"

static long futex_wait(const uint32_t *word, uint32_t value, const struct timespec *deadline,
		       uint32_t groups)
{
	hook_step(word, "futex wait", "syscall", 0);
	actor_saw(*word != value);
	if (*word != value) {
		errno = EAGAIN;
		return -1;
	}
	if (turn_wait(word, deadline && (world.waits_end || world.deadlines), groups))
		return 0;
	clock_passes();
	errno = ETIMEDOUT;
	return -1;
}

static long futex_wake(const uint32_t *word, int most, uint32_t groups)
{
	hook_step(word, "futex wake", "syscall", 0);
	actor_wrote();
	return turn_wake(word, most, groups);
}

/* No signals come here: all are blocked already. */
static long blocked_signals(void *set)
{
	if (set)
		memset(set, 0xff, 8);
	return 0;
}

long hook_syscall(long number, ...)
{
	va_list args;
	long a[6];

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (!scheduled())
		return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	switch (number) {
	case SYS_futex:
		if ((a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET)
			return futex_wait((void *)a[0], (uint32_t)a[2], (void *)a[3],
					  (uint32_t)a[5]);
		return futex_wake((void *)a[0], (int)a[2], (uint32_t)a[5]);
	case SYS_pread64:
		if (a[0] == world_arena->memfd)
			return memory_read((void *)a[1], (size_t)a[2], a[3]);
		return target_read((void *)a[1], (size_t)a[2], a[3]);
	case SYS_fallocate:
		return memory_punch(a[2], a[3]);
	case SYS_rt_sigprocmask:
		return blocked_signals((void *)a[2]);
	case SYS_nanosleep:
		turn_spin();
		return 0;
	case SYS_madvise:
		return protection_populate((void *)a[0]);
	}
	violated("system call %ld", number);
}

int world_signal(void)
{
	return world.sigbus ? SIGBUS : SIGSEGV;
}

static bool using_up;

static void other_handler(int signo)
{
	(void)signo;
}

/* Once in a process: from then on another handler is left where it is. */
void handlers_begin(void)
{
	if (world.sigbus)
		ldfs_fault_serve_sigbus();
	using_up = world.stolen;
	while (using_up && ldfs_fault_retake(world_signal()) >= 0)
		;
	using_up = false;
	if (world.stolen)
		ldfs_fault_verify(world_signal()); /* the first run begins as all others do: entry 0
						      was seen */
}

int hook_sigaction(int signo, const struct sigaction *act, struct sigaction *before)
{
	bool stolen = using_up || (world.stolen && memory_has_instant());

	(void)signo, (void)act;
	if (before && stolen)
		*before = (struct sigaction){ .sa_handler = other_handler };
	else if (before)
		*before = (struct sigaction){ .sa_sigaction = ldfs_fault_entries[0],
					      .sa_flags = SA_SIGINFO | SA_ONSTACK };
	return 0;
}
