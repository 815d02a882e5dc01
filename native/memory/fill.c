/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fill.c - fills the page tables of a view: so that after the swap the machine takes no page fault
 * for a load, and the sweep and the fault path none on the observer view.
 *
 * Entries stay valid as long as their page is there: the kernel itself removes them when the page
 * goes, from every view. So a view that was filled once lacks only what came since. Which pages
 * exist is told by the live view's own page tables; only what the program has not touched there is
 * asked of the file (SEEK_DATA), which costs five times as much.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/within.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* Bytes of one call, and of what a thread takes at once. */
#define PIECE (32ULL << 20)
/* A thread more for so many bytes of the view; a smaller one is filled by its caller alone. */
#define PER_THREAD (128ULL << 20)
/* The kernel's own locks let no more be of use. */
#define THREADS_MOST 8

struct fill {
	ldfs_arena *a;
	uint8_t *view;
	bool guard;
	struct ldfs_pagemap pagemap;
	_Atomic uint64_t next; /* offset of the first piece that no thread has taken */
	_Atomic int error;
};

/*
 * A page that is discarded in the meantime may be allocated again, as zeros: that costs memory, but
 * loses no data.
 */
static int populate(uint8_t *view, uint64_t start, uint64_t end)
{
	for (; start < end; start += PIECE)
		if (madvise(view + start, end - start < PIECE ? end - start : PIECE,
			    MADV_POPULATE_READ))
			return -errno;
	return 0;
}

/* Fill [at, end), which lacks all entries, where the live view has them. */
static int fill_gap(const struct fill *f, uint64_t at, uint64_t end)
{
	uint64_t first, last = at;
	int rc = 0;

	while (!rc &&
	       ldfs_pagemap_next(&f->pagemap, f->a->live, last, end, LDFS_MAPPED, &first, &last))
		rc = populate(f->view, first, last);
	return rc;
}

/* Protect of [at, end) what is not protected. */
static int guard(const struct fill *f, uint64_t at, uint64_t end)
{
	uint64_t first, last;
	int rc = 0;

	for (; !rc && at < end; at = last) {
		if (!ldfs_pagemap_next(&f->pagemap, f->view, at, end, LDFS_MAPPED_GUARDED, &first,
				       &last))
			first = last = end;
		if (at < first)
			rc = ldfs_uffd_protect(f->a, f->view + at, first - at);
	}
	return rc;
}

static int fill_piece(const struct fill *f, uint64_t at)
{
	uint64_t end = f->a->size - at < PIECE ? f->a->size : at + PIECE, first, last = at;
	int rc = f->guard ? guard(f, at, end) : 0;

	while (!rc &&
	       ldfs_pagemap_next(&f->pagemap, f->view, last, end, LDFS_MAPPED_NOT, &first, &last))
		rc = fill_gap(f, first, last);
	return rc;
}

static void *fill_main(void *fill)
{
	struct fill *f = fill;
	uint64_t at;

	while (!load_seq(&f->error) && (at = add_seq(&f->next, PIECE)) < f->a->size) {
		int rc = fill_piece(f, at);

		if (rc)
			store_seq(&f->error, rc);
	}
	return NULL;
}

static unsigned threads_for(uint64_t size)
{
	uint64_t wanted = size / PER_THREAD;
	unsigned count = ldfs_thread_processors();

	if (wanted > THREADS_MOST)
		wanted = THREADS_MOST;
	return wanted > count ? count : (unsigned)wanted;
}

/* This thread takes part: where no other can be made, it does all. */
static int fill_by_threads(struct fill *f)
{
	unsigned others = 0, wanted = threads_for(f->a->size);
	pthread_t threads[THREADS_MOST];

	while (others + 1 < wanted &&
	       !ldfs_thread_start(&threads[others], fill_main, f, "ldfs-fill"))
		others++;
	fill_main(f);
	while (others)
		pthread_join(threads[--others], NULL);
	return load_seq(&f->error);
}

/* Fill of [at, end), which lacks all entries, what is no hole. */
static int fill_unseen(const struct fill *f, uint64_t at, uint64_t end)
{
	uint64_t first, last = at;
	int rc = 0, error = 0;

	while (!rc && ldfs_next_data_piece(f->a, last, end, &first, &last, &error))
		rc = populate(f->view, first, last);
	return rc ? rc : error;
}

static int fill_rest(const struct fill *f)
{
	uint64_t first, last = 0;
	int rc = 0;

	while (!rc && ldfs_pagemap_next(&f->pagemap, f->view, last, f->a->size, LDFS_MAPPED_NOT,
					&first, &last))
		rc = fill_unseen(f, first, last);
	return rc;
}

int ldfs_fill(ldfs_arena *a, uint8_t *view, bool guarded)
{
	struct fill f = { .a = a, .view = view, .guard = guarded };
	int rc;

	ldfs_pagemap_open(&f.pagemap, a);
	rc = fill_by_threads(&f);
	if (!rc)
		rc = fill_rest(&f);
	ldfs_pagemap_close(&f.pagemap);
	return rc;
}
