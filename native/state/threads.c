/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * threads.c - the threads of a dump, counted from before they begin until they touch nothing any
 * more.
 */
#include "state/state.h"

int ldfs_threads_start(ldfs_dump *d, pthread_t *thread, void *(*main)(void *), void *arg,
		       const char *name)
{
	int rc;

	add_seq(&d->threads_running, 1);
	rc = ldfs_thread_start(thread, main, arg, name);
	if (rc)
		ldfs_threads_ended(d);
	return rc;
}

void ldfs_threads_ended(ldfs_dump *d)
{
	sub_seq(&d->threads_running, 1);
	ldfs_event_notify(&d->progress);
}
