/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * forked.c - fork, with a child that writes the memory as it was then (copy-on-write), as Redis
 * saves. The memory is private in this way.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "peer.h"

static pid_t child;
static int orders[2]; /* a pipe; a byte in it: write the memory; closed: exit */

static int map(struct bench *b)
{
	b->memory = mmap(NULL, b->opt.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	if (b->memory == MAP_FAILED)
		return -errno;
	madvise(b->memory, b->opt.size, MADV_NOHUGEPAGE); /* small pages, as in the other ways */
	return 0;
}

static int prepare(struct bench *b)
{
	(void)b;
	return pipe(orders) ? -errno : 0;
}

static void child_main(struct bench *b)
{
	char order;
	int rc = 0;

	close(orders[1]);
	if (read(orders[0], &order, 1) == 1)
		rc = write_pages(b->target, b->memory, 0, b->pages);
	_exit(rc ? 1 : 0);
}

static int arm(struct bench *b)
{
	child = fork();
	if (child == 0)
		child_main(b);
	return child < 0 ? -errno : 0;
}

static int start(struct bench *b)
{
	return stop_and(b, arm);
}

static int wait_for_child(void)
{
	int status;

	if (waitpid(child, &status, 0) != child)
		return -errno;
	child = 0;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int sweep(struct bench *b)
{
	(void)b;
	if (write(orders[1], "w", 1) != 1)
		return -errno;
	return wait_for_child();
}

static int finish(struct bench *b)
{
	(void)b;
	close(orders[1]);
	close(orders[0]);
	return child ? wait_for_child() : 0;
}

const struct peer forked = { "fork", map, prepare, start, sweep, finish };
