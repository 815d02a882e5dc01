/* SPDX-License-Identifier: GPL-2.0-or-later */
/* saver.c - see saver.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "saver.h"

enum { ARMED, CLAIMED, IN_MEMORY, ON_TARGET };

static _Atomic uint8_t *states;
static uint8_t *saved;
static _Atomic uint64_t longest;

int saver_make(struct bench *b)
{
	if (saved)
		return 0;
	states = calloc(b->pages, 1);
	saved = mmap(NULL, b->opt.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!states || saved == MAP_FAILED)
		return -ENOMEM;
	/* Small pages that exist already, so that no fault has to allocate them. */
	madvise(saved, b->opt.size, MADV_NOHUGEPAGE);
	return madvise(saved, b->opt.size, MADV_POPULATE_WRITE) ? -errno : 0;
}

void saver_arm(struct bench *b)
{
	memset((void *)states, ARMED, b->pages);
	atomic_store(&longest, 0);
}

bool saver_save(struct bench *b, uint64_t page)
{
	uint8_t armed = ARMED;

	if (!atomic_compare_exchange_strong(&states[page], &armed, CLAIMED))
		return armed != CLAIMED;
	memcpy(saved + page * PAGE, b->memory + page * PAGE, PAGE);
	atomic_store(&states[page], IN_MEMORY);
	return true;
}

void saver_save_or_wait(struct bench *b, uint64_t page)
{
	while (!saver_save(b, page))
		sched_yield();
}

void saver_note(struct bench *b, uint64_t since_ns)
{
	uint64_t took = now_ns() - since_ns, seen = atomic_load(&longest);

	while (took > seen && !atomic_compare_exchange_weak(&longest, &seen, took))
		;
	b->save_max_ns = atomic_load(&longest);
}

/* Claim armed pages from `first` on, at most RUN_PAGES; returns how many. */
static uint64_t claim_run(struct bench *b, uint64_t first)
{
	uint64_t count = 0;

	while (count < RUN_PAGES && first + count < b->pages) {
		uint8_t armed = ARMED;

		if (!atomic_compare_exchange_strong(&states[first + count], &armed, CLAIMED))
			break;
		count++;
	}
	return count;
}

static int write_run(struct bench *b, uint64_t first, uint64_t count, open_pages open)
{
	int rc = write_pages(b->target, b->memory, first, count);

	for (uint64_t i = first; i < first + count; i++)
		atomic_store(&states[i], ON_TARGET);
	return rc ? rc : open(b, first, count);
}

static int write_saved(struct bench *b)
{
	for (uint64_t first = 0, end; first < b->pages; first = end) {
		int rc;

		end = first + 1;
		if (atomic_load(&states[first]) != IN_MEMORY)
			continue;
		while (end < b->pages && end - first < RUN_PAGES &&
		       atomic_load(&states[end]) == IN_MEMORY)
			end++;
		rc = write_pages(b->target, saved, first, end - first);
		if (rc)
			return rc;
	}
	return 0;
}

int saver_sweep(struct bench *b, open_pages open)
{
	for (uint64_t at = 0; at < b->pages;) {
		uint64_t count = claim_run(b, at);
		int rc = count ? write_run(b, at, count, open) : 0;

		if (rc)
			return rc;
		at += count ? count : 1;
	}
	/* A page that a fault has claimed is saved in a moment: wait for that. */
	for (uint64_t page = 0; page < b->pages; page++)
		saver_save_or_wait(b, page);
	return write_saved(b);
}
