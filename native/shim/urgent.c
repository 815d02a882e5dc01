/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * urgent.c - threads of this process that the host runs before all ordinary threads (SCHED_FIFO)
 * while it holds the machine. The host lowers them itself; this is for a host that cannot: killed,
 * crashed, or standing still.
 *
 * Everything here is called under the lock of words.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "shim/within.h"

static int32_t threads[LDFS_SHIM_THREADS]; /* thread ids */
static size_t thread_count;

/*
 * A thread may always make itself and its like ordinary; to take the flag SCHED_RESET_ON_FORK away
 * it needs CAP_SYS_NICE, which a QEMU with -runas has given up. The flag alone does no harm.
 */
static void lower(pid_t thread)
{
	const struct sched_param ordinary = { 0 };

	if (sched_setscheduler(thread, SCHED_OTHER, &ordinary))
		sched_setscheduler(thread, SCHED_OTHER | SCHED_RESET_ON_FORK, &ordinary);
}

void shim_urgent_lower(void)
{
	for (size_t i = 0; i < thread_count; i++) {
		/* Not another policy that was chosen meanwhile, nor another process's thread. */
		if (sched_getscheduler(threads[i]) == (SCHED_FIFO | SCHED_RESET_ON_FORK) &&
		    !tgkill(getpid(), threads[i], 0))
			lower(threads[i]);
	}
}

/* A change of this thread that changes nothing needs no right. */
bool shim_urgent_may_lower(void)
{
	struct sched_param param;
	int policy = sched_getscheduler(0);

	return policy >= 0 && !sched_getparam(0, &param) && !sched_setscheduler(0, policy, &param);
}

void shim_urgent_keep(const uint8_t *ids, size_t count)
{
	shim_urgent_lower();
	memcpy(threads, ids, count * sizeof(*threads));
	thread_count = count;
}
