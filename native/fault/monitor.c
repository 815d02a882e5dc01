/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * monitor.c - the thread that userfaultfd tells of stores to armed memory: it saves the granule,
 * and then lets the store go on. It does for the storing thread what the SIGSEGV handler does on
 * that thread itself.
 *
 * One thread an arena, from its first dump with backend UFFD to the arena's end (memory/uffd.c says
 * why), or until a dump with backend SIGBUS needs another userfaultfd; with that one no store is
 * told here, and the thread only reads the events of START's swap, so that mremap returns. It reads
 * memory through the observer view and the memfd alone, which are never protected.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fault/within.h"

#define MESSAGES 32

/* As the handler does for its own thread: see inside.c, fault_in_arena. */
static void page_fault(ldfs_arena *a, uintptr_t address)
{
	uintptr_t page = address & ~(a->page - 1), live = (uintptr_t)a->live;
	struct uffdio_range range = { page, a->page };
	ldfs_dump *d;

	ldfs_fault_enter(a);
	d = load_seq(&a->dump);
	if (page >= live && page < live + a->size) {
		if (d)
			ldfs_fault_save_for(d, ldfs_granule_of(d, page - live));
		else
			ldfs_uffd_unprotect(a, (uint8_t *)page, a->page);
	}
	ldfs_fault_leave(a);
	/* The store is tried again, also when START is at work and nothing could be done yet. */
	ioctl(a->uffd.fd, UFFDIO_WAKE, &range);
}

static void read_messages(ldfs_arena *a)
{
	struct uffd_msg messages[MESSAGES];
	ssize_t n = read(a->uffd.fd, messages, sizeof(messages));

	for (ssize_t i = 0; i < n / (ssize_t)sizeof(messages[0]); i++)
		if (messages[i].event == UFFD_EVENT_PAGEFAULT)
			page_fault(a, (uintptr_t)messages[i].arg.pagefault.address);
	/* UFFD_EVENT_REMAP: to be read is all it wants. */
}

static void *monitor(void *arena)
{
	ldfs_arena *a = arena;
	struct pollfd fds[2] = { { .fd = a->uffd.fd, .events = POLLIN },
				 { .fd = a->uffd.stop, .events = POLLIN } };

	store_seq(&a->uffd.tid, gettid());
	store_seq(&a->uffd.self, (uint64_t)pthread_self());
	while (!(fds[1].revents & POLLIN)) {
		if (poll(fds, 2, -1) > 0 && fds[0].revents)
			read_messages(a);
	}
	return NULL;
}

/* Its userfaultfd is there. */
static int start(ldfs_arena *a)
{
	struct ldfs_uffd *u = &a->uffd;
	int rc;

	u->stop = eventfd(0, EFD_CLOEXEC);
	if (u->stop < 0)
		return -errno;
	rc = ldfs_thread_start(&u->monitor, monitor, a, "ldfs-uffd");
	if (rc)
		close(u->stop);
	return rc;
}

/*
 * A discard that sees the shadow guarded uses the userfaultfd, and so does ldfs_arena_writable
 * where the arena tracks. Nothing is armed, so no thread else does.
 */
void ldfs_monitor_give_up(ldfs_arena *a)
{
	unsigned turns = 0;

	if (a->uffd.fd < 0)
		return;
	store_seq(&a->shadow_guarded, 0);
	store_seq(&a->tracks, 0);
	while (ldfs_fault_inside(a))
		ldfs_event_soon(&turns);
	ldfs_uffd_unregister(a);
	ldfs_monitor_stop(a);
}

int ldfs_monitor_start(ldfs_arena *a, uint32_t backend, int given)
{
	int rc;

	if (a->uffd.fd >= 0 && a->uffd.backend == backend)
		return 0;
	ldfs_monitor_give_up(a);
	rc = ldfs_uffd_make(&a->uffd, backend, given, ldfs_arena_huge(a));
	if (rc)
		return rc;
	rc = start(a);
	if (rc) {
		close(a->uffd.fd);
		a->uffd.fd = -1;
	}
	return rc;
}

void ldfs_monitor_stop(ldfs_arena *a)
{
	if (a->uffd.fd < 0)
		return;
	eventfd_write(a->uffd.stop, 1);
	pthread_join(a->uffd.monitor, NULL);
	close(a->uffd.stop);
	store_seq(&a->uffd.self, 0);
	store_seq(&a->uffd.tid, 0);
	close(a->uffd.fd); /* the kernel unregisters all, and wakes all that wait */
	a->uffd.fd = -1;
}
