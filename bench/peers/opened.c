/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * opened.c - the floor of a fault in user space: a granule is made writable by the thread that
 * stores to it, and that is all. Nothing is claimed or recorded; with copy=1 the old bytes are
 * copied to memory that exists, as each way that keeps them has to.
 *
 * These are no ways to make a dump: they have no sweep.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "peer.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static struct bench *armed;
static uint8_t *served; /* a byte for each granule; only the thread that stores to it writes it */
static uint8_t *copies;
static int uffd = -1;
static int (*open_granule)(uint64_t at); /* [signal] 0: it is writable */

/* [signal] The first byte of the granule of that address; the size of memory: it is not ours. */
static uint64_t granule_of(const siginfo_t *info)
{
	uint64_t at = (uint64_t)((uint8_t *)info->si_addr - armed->memory);

	return at < armed->opt.size ? at / armed->opt.granule * armed->opt.granule
				    : armed->opt.size;
}

/* [signal] */
static void keep(uint64_t at)
{
	served[at / armed->opt.granule] = 1;
	if (copies)
		memcpy(copies + at, armed->memory + at, armed->opt.granule);
}

static void count_served(struct bench *b)
{
	b->served = 0;
	for (uint64_t i = 0; i < b->opt.size / b->opt.granule; i++)
		b->served += served[i];
}

/* [signal] Keeps the granule, and makes it writable by `open_granule`. */
static void on_fault(int signo, siginfo_t *info, void *context)
{
	uint64_t at = granule_of(info);

	(void)context;
	if (at >= armed->opt.size) {
		signal(signo, SIG_DFL);
		return;
	}
	keep(at);
	if (open_granule(at))
		abort();
}

static int prepare(struct bench *b, int signo, int (*opens)(uint64_t at))
{
	struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };

	armed = b;
	open_granule = opens;
	if (!served)
		served = malloc(b->opt.size / b->opt.granule);
	if (!served)
		return -ENOMEM;
	memset(served, 0, b->opt.size / b->opt.granule);
	if (b->opt.copy && !copies) {
		copies = mmap(NULL, b->opt.size, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (copies == MAP_FAILED)
			return -ENOMEM;
	}
	return sigaction(signo, &act, NULL) ? -errno : 0;
}

/* [signal] */
static int mprotect_open(uint64_t at)
{
	return mprotect(armed->memory + at, armed->opt.granule, PROT_READ | PROT_WRITE);
}

static int mprotect_prepare(struct bench *b)
{
	return prepare(b, SIGSEGV, mprotect_open);
}

static int mprotect_start(struct bench *b)
{
	return mprotect(b->memory, b->opt.size, PROT_READ) ? -errno : 0;
}

static int mprotect_finish(struct bench *b)
{
	count_served(b);
	return mprotect(b->memory, b->opt.size, PROT_READ | PROT_WRITE) ? -errno : 0;
}

/* [signal] */
static int uffd_set(struct bench *b, uint64_t at, uint64_t length, uint64_t mode)
{
	struct uffdio_writeprotect w = { { (uintptr_t)b->memory + at, length }, mode };

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &w) ? -errno : 0;
}

/* [signal] */
static int uffd_open(uint64_t at)
{
	return uffd_set(armed, at, armed->opt.granule, 0);
}

static int uffd_prepare(struct bench *b)
{
	struct uffdio_api api = {
		.api = UFFD_API, .features = UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_SIGBUS
	};
	struct uffdio_register r = { .range = { (uintptr_t)b->memory, b->opt.size },
				     .mode = UFFDIO_REGISTER_MODE_WP };

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &r))
		return -errno;
	return prepare(b, SIGBUS, uffd_open);
}

static int uffd_start(struct bench *b)
{
	return uffd_set(b, 0, b->opt.size, UFFDIO_WRITEPROTECT_MODE_WP);
}

static int uffd_finish(struct bench *b)
{
	int rc = uffd_set(b, 0, b->opt.size, 0);

	count_served(b);
	close(uffd);
	return rc;
}

static int no_sweep(struct bench *b)
{
	(void)b;
	return -EOPNOTSUPP;
}

const struct peer open_segv = { "open-mprotect", map_shared, mprotect_prepare,
				mprotect_start,  no_sweep,   mprotect_finish };
const struct peer open_sigbus = { "open-uffd", map_shared, uffd_prepare,
				  uffd_start,  no_sweep,   uffd_finish };
