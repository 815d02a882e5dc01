/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mprotected.c - mprotect in place, with a SIGSEGV handler that saves the page and makes it
 * writable.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "saver.h"

/* Pages that are made writable together when the kernel allows no more mappings (ENOMEM). */
#define BLOCK 512

static struct bench *armed;

static int set(struct bench *b, uint64_t first, uint64_t count, int rights)
{
	return mprotect(b->memory + first * PAGE, count * PAGE, rights) ? -errno : 0;
}

static int open_pages_of(struct bench *b, uint64_t first, uint64_t count)
{
	int rc = set(b, first, count, PROT_READ | PROT_WRITE);
	uint64_t end;

	if (rc != -ENOMEM)
		return rc;
	for (uint64_t size = BLOCK; rc == -ENOMEM; size *= 8) {
		end = (first + count + size - 1) / size * size;
		first = first / size * size;
		end = end < b->pages ? end : b->pages;
		count = end - first;
		for (uint64_t page = first; page < end; page++)
			saver_save_or_wait(b, page);
		rc = set(b, first, count, PROT_READ | PROT_WRITE);
		if (count == b->pages)
			break;
	}
	return rc;
}

static void handler(int signo, siginfo_t *info, void *context)
{
	uint64_t at = (uint64_t)((uint8_t *)info->si_addr - armed->memory), since = now_ns();

	(void)context;
	if (at >= armed->opt.size) {
		signal(signo, SIG_DFL);
		return;
	}
	saver_save_or_wait(armed, at / PAGE);
	open_pages_of(armed, at / PAGE, 1);
	saver_note(armed, since);
}

static int prepare(struct bench *b)
{
	struct sigaction act = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	armed = b;
	return sigaction(SIGSEGV, &act, NULL) ? -errno : saver_make(b);
}

static int arm(struct bench *b)
{
	saver_arm(b);
	return set(b, 0, b->pages, PROT_READ);
}

static int start(struct bench *b)
{
	return stop_and(b, arm);
}

static int sweep(struct bench *b)
{
	return saver_sweep(b, open_pages_of);
}

static int finish(struct bench *b)
{
	return set(b, 0, b->pages, PROT_READ | PROT_WRITE);
}

const struct peer mprotected = { "mprotect", map_shared, prepare, start, sweep, finish };
