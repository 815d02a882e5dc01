/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * helper.c - threads that do the work of writer and sweep beside these two, while they are called
 * (effort.c). One that sweeps, or is not called, holds no slot: the I/O of a piece may last, and
 * the sweep's slots may become writable meanwhile. Once no piece is left it keeps those that may
 * not be written yet, and sleeps: given back, it would find them at once again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "saving/within.h"

static bool called(const struct ldfs_helper *h)
{
	return h->index < ldfs_effort_called(h->d);
}

/*
 * Sleep until called. A wake-up for a filled slot that came to this thread is another's; it looks
 * after it has ceased to wait for them.
 */
static void stand_by(struct ldfs_helper *h)
{
	struct ldfs_event *change = &h->d->effort.change;
	uint32_t seen = ldfs_event_prepare(change);

	ldfs_batch_give_back(&h->batch, h->d);
	if (load_seq(&h->d->ring.filled))
		ldfs_event_notify_one(&h->d->ring.arrived);
	if (called(h) || ldfs_released(h->d))
		ldfs_event_cancel(change);
	else
		ldfs_event_wait(change, seen, UINT64_MAX);
}

/* With a rate limit the sweep is slow on purpose. */
static bool may_sweep(const struct ldfs_helper *h)
{
	return called(h) && !h->d->sweep_rate && ldfs_sweep_begun(h->d) &&
	       load_seq(&h->d->sweep_next) < h->d->granules;
}

/* Whatever INIT's thread is: a helper is never before the machine's own threads. */
static void be_ordinary(void)
{
	int policy = sched_getscheduler(0);

	if (policy == SCHED_FIFO || policy == SCHED_RR)
		ldfs_urgent_lower(0);
}

/* Slots first: stores wait for them. False: there was nothing to do. */
static bool help(struct ldfs_helper *h)
{
	bool any = ldfs_writer_save(h->d, &h->batch);

	if (may_sweep(h)) {
		ldfs_batch_give_back(&h->batch, h->d);
		any |= ldfs_sweep_piece(h->d, h->scratch);
	}
	ldfs_table_tick(h->d);
	return any;
}

static void *helper_main(void *helper)
{
	struct ldfs_helper *h = helper;
	ldfs_dump *d = h->d;

	be_ordinary();
	while (!ldfs_released(d)) {
		if (!called(h))
			stand_by(h);
		else if (!help(h))
			ldfs_batch_wait(&h->batch, d, ldfs_deadline(LDFS_TICK_NS));
	}
	ldfs_threads_ended(d);
	return NULL;
}

static int init_helper(struct ldfs_helper *h, ldfs_dump *d, uint32_t index)
{
	h->d = d;
	h->index = index;
	h->scratch = ldfs_buffer_make(1ULL << d->granule_shift);
	return h->scratch ? ldfs_batch_init(&h->batch, &d->ring) : -ENOMEM;
}

static void destroy_helper(struct ldfs_helper *h)
{
	ldfs_buffer_free(h->scratch, 1ULL << h->d->granule_shift);
	free(h->batch.slots);
}

/* A dump does without helpers: what cannot be made is left out. */
void ldfs_helpers_init(ldfs_dump *d)
{
	uint32_t wanted = d->pack.on || d->target.fd < 0 ? 0 : ldfs_effort_helpers();

	d->helpers = wanted ? calloc(wanted, sizeof(*d->helpers)) : NULL;
	while (d->helpers && d->helper_count < wanted) {
		struct ldfs_helper *h = &d->helpers[d->helper_count];

		if (init_helper(h, d, d->helper_count)) {
			destroy_helper(h);
			break;
		}
		d->helper_count++;
	}
}

void ldfs_helpers_destroy(ldfs_dump *d)
{
	for (uint32_t i = 0; i < d->helper_count; i++)
		destroy_helper(&d->helpers[i]);
	free(d->helpers);
}

void ldfs_helpers_start(ldfs_dump *d)
{
	struct ldfs_helper *h = d->helpers;

	while (d->helpers_made < d->helper_count &&
	       !ldfs_threads_start(d, &h->thread, helper_main, h, "ldfs-helper")) {
		d->helpers_made++;
		h++;
	}
	store_seq(&d->effort.helpers, d->helpers_made);
}

void ldfs_helpers_join(ldfs_dump *d)
{
	for (uint32_t i = 0; i < d->helpers_made; i++)
		pthread_join(d->helpers[i].thread, NULL);
}
