/* SPDX-License-Identifier: GPL-2.0-or-later */
/* stopped.c - stop and copy: the writers are stopped while all memory is copied to other memory. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "peer.h"

static uint8_t *copy;

static int prepare(struct bench *b)
{
	if (!copy) {
		copy = mmap(NULL, b->opt.size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (copy == MAP_FAILED)
			return -errno;
	}
	return 0;
}

static int arm(struct bench *b)
{
	memcpy(copy, b->memory, b->opt.size);
	return 0;
}

static int start(struct bench *b)
{
	return stop_and(b, arm);
}

static int sweep(struct bench *b)
{
	return write_pages(b->target, copy, 0, b->pages);
}

static int finish(struct bench *b)
{
	(void)b;
	return 0;
}

const struct peer stopped = { "stop", map_shared, prepare, start, sweep, finish };
