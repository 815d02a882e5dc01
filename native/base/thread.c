/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * thread.c - starting the core's own threads.
 *
 * These threads block all signals that are meant for the program, but never SIGSEGV, which a store
 * to a protected page raises: START refuses a process in which any thread blocks it.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>

#include "base/base.h"

static void mask_for_threads(sigset_t *set)
{
	sigfillset(set);
	sigdelset(set, SIGSEGV);
	sigdelset(set, SIGBUS);
	sigdelset(set, SIGFPE);
	sigdelset(set, SIGILL);
}

int ldfs_thread_start(pthread_t *thread, void *(*main)(void *), void *arg, const char *name)
{
	sigset_t ours, before;
	int rc;

	mask_for_threads(&ours);
	pthread_sigmask(SIG_SETMASK, &ours, &before);
	rc = pthread_create(thread, NULL, main, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		return -rc;
	pthread_setname_np(*thread, name);
	return 0;
}

int ldfs_thread_detached(void *(*main)(void *), void *arg, const char *name)
{
	pthread_t thread;
	int rc = ldfs_thread_start(&thread, main, arg, name);

	if (!rc)
		pthread_detach(thread);
	return rc;
}

unsigned ldfs_thread_processors(void)
{
	cpu_set_t allowed;

	return sched_getaffinity(0, sizeof(allowed), &allowed) ? 1 : (unsigned)CPU_COUNT(&allowed);
}
