/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uffd.c - userfaultfd write protection in two ways. One is a thread that reads the faults, as
 * QEMU's background-snapshot and Firecracker's handlers do. The other is a SIGBUS handler on the
 * thread that stores (UFFD_FEATURE_SIGBUS, which applies to write-protect faults too), so that no
 * other thread has to be woken.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "saver.h"

static struct bench *armed;
static int uffd = -1, ending[2];
static pthread_t monitor;

static int protect(struct bench *b, uint64_t first, uint64_t count, uint64_t mode)
{
	struct uffdio_writeprotect w = {
		.range = { (uintptr_t)b->memory + first * PAGE, count * PAGE },
		.mode = mode,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &w) ? -errno : 0;
}

static int open_pages_of(struct bench *b, uint64_t first, uint64_t count)
{
	return protect(b, first, count, 0);
}

static void serve(struct bench *b, uint64_t at)
{
	uint64_t since = now_ns();

	/*
	 * A page that the sweep is writing: the sweep makes it writable, which wakes the waiting
	 * thread.
	 */
	if (!saver_save(b, at / PAGE))
		return;
	open_pages_of(b, at / PAGE, 1);
	saver_note(b, since);
}

static void *monitor_main(void *arg)
{
	struct bench *b = arg;
	struct pollfd fds[] = { { .fd = uffd, .events = POLLIN },
				{ .fd = ending[0], .events = POLLIN } };
	struct uffd_msg m;

	while (poll(fds, 2, -1) > 0 && !fds[1].revents)
		while (read(uffd, &m, sizeof(m)) == sizeof(m))
			if (m.event == UFFD_EVENT_PAGEFAULT)
				serve(b, m.arg.pagefault.address - (uintptr_t)b->memory);
	return NULL;
}

/* All pages of a granule at once. */
static void serve_granule(struct bench *b, uint64_t at)
{
	uint64_t since = now_ns(), count = b->opt.granule ? b->opt.granule / PAGE : 1;
	uint64_t first = at / PAGE / count * count;

	count = b->pages - first < count ? b->pages - first : count;
	for (uint64_t page = first; page < first + count; page++)
		saver_save_or_wait(b, page);
	open_pages_of(b, first, count);
	saver_note(b, since);
}

static void handler(int signo, siginfo_t *info, void *context)
{
	uint64_t at = (uint64_t)((uint8_t *)info->si_addr - armed->memory);

	(void)context;
	if (at < armed->opt.size)
		serve_granule(armed, at);
	else
		signal(signo, SIG_DFL);
}

static int open_uffd(struct bench *b, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM | features };
	struct uffdio_register r = { .range = { (uintptr_t)b->memory, b->opt.size },
				     .mode = UFFDIO_REGISTER_MODE_WP };

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &r))
		return -errno;
	armed = b;
	return saver_make(b);
}

static int prepare_thread(struct bench *b)
{
	int rc = open_uffd(b, 0);

	if (!rc && pipe(ending))
		rc = -errno;
	return rc ? rc : -pthread_create(&monitor, NULL, monitor_main, b);
}

static int prepare_sigbus(struct bench *b)
{
	struct sigaction act = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	return sigaction(SIGBUS, &act, NULL) ? -errno : open_uffd(b, UFFD_FEATURE_SIGBUS);
}

static int arm(struct bench *b)
{
	saver_arm(b);
	return protect(b, 0, b->pages, UFFDIO_WRITEPROTECT_MODE_WP);
}

static int start(struct bench *b)
{
	return stop_and(b, arm);
}

static int sweep(struct bench *b)
{
	return saver_sweep(b, open_pages_of);
}

static int finish_sigbus(struct bench *b)
{
	int rc = open_pages_of(b, 0, b->pages);

	close(uffd);
	return rc;
}

static int finish_thread(struct bench *b)
{
	int rc = open_pages_of(b, 0, b->pages);

	close(ending[1]);
	pthread_join(monitor, NULL);
	close(ending[0]);
	close(uffd);
	return rc;
}

const struct peer uffd_thread = { "uffd", map_shared, prepare_thread, start, sweep, finish_thread };
const struct peer uffd_sigbus = { "uffd-sigbus", map_shared, prepare_sigbus,
				  start,         sweep,      finish_sigbus };
