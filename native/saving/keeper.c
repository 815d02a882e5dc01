/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keeper.c - the threads that add slots to the pool before the free ones run out, and with pool
 * auto also give memory back that is not needed any more.
 *
 * How many free slots are enough goes by how fast they went lately. With pool auto free swap is no
 * memory, and the pool takes half of what is available at the most: of what would be there without
 * it. Memory that is missing may come later, so the keepers look again, unless a thread that finds
 * no slot has to know at once that none will come (see patient).
 */
#include <errno.h>
#include <unistd.h>

#include "saving/saving.h"

#define SPILL_BYTES (4u << 20) /* slots added at once under policy spill */
#define AUTO_BYTES (16u << 20) /* and with pool auto */
#define AHEAD_NS 30000000u     /* free slots are to last so long */
#define LOOK_NS 50000000u      /* between two looks at memory, and what could be given back */
#define OLD_NS 1000000000u     /* a look at memory is made anew, whatever stores did */
#define AGAIN_NS 20000000u     /* after a growth that found no memory */
#define PROCESSORS_EACH 4      /* one keeper for so many */

uint32_t ldfs_keepers_wanted(const ldfs_dump *d)
{
	uint32_t wanted = ldfs_thread_processors() / PROCESSORS_EACH;

	if (!d->ring.grows)
		return 0;
	if (!d->ring.follows || wanted < 1)
		return 1;
	return wanted < LDFS_KEEPERS_MOST ? wanted : LDFS_KEEPERS_MOST;
}

struct keeper {
	ldfs_dump *d;
	bool leads; /* the one that measures, and gives back */
	uint64_t then_ns;
	uint32_t then_used; /* slots in use at then_ns */
	uint32_t lately;    /* most slots in use lately, and less by and by */
	uint32_t looked;    /* slots in use at the last look for memory */
	uint64_t looked_ns; /* when that was */
};

/* ----------------------------------------------------------------------- grow */

/* Slots added at once. */
static uint32_t part_of(const struct ldfs_ring *r)
{
	uint64_t bytes = r->follows ? AUTO_BYTES : SPILL_BYTES;

	return bytes > r->slot_size ? (uint32_t)(bytes / r->slot_size) : 1;
}

/*
 * What other keepers are making counts as if none of it were there: they may all look at once.
 * *certain: the answer is about `count` slots and no more, and no want of a descriptor has kept it
 * from being known.
 */
static bool memory_for(ldfs_dump *d, uint32_t count, bool *certain)
{
	struct ldfs_ring *r = &d->ring;
	uint64_t bytes = count * r->slot_size, growing = ldfs_pool_growing(r), grown;
	bool allowed;

	grown = (uint64_t)(load_seq(&r->made) - r->least) * r->slot_size;
	allowed = r->follows ? ldfs_headroom_ram(grown + growing * r->slot_size + bytes)
			     : ldfs_headroom(bytes);
	*certain = (allowed || errno == ENOMEM) && (growing == count || !r->follows);
	return allowed;
}

/* Whether a thread that finds no slot may wait until there is memory for one. */
static bool patient(const ldfs_dump *d)
{
	return d->target.fd >= 0 ? d->ring.follows : d->at_limit == LDFS_AT_LIMIT_HOLD;
}

/*
 * Whether the pool stays as it is: only when no slot is free, because what is short ahead of need
 * may be there by then; and when nothing is being made that could be the slot for a thread.
 */
static bool is_final(ldfs_dump *d, bool certain)
{
	struct ldfs_ring *r = &d->ring;

	if (patient(d) || !certain || (r->follows && ldfs_ring_has_free(r)))
		return false;
	return ldfs_pool_settle(r);
}

static void no_memory(ldfs_dump *d, bool certain)
{
	struct ldfs_ring *r = &d->ring;
	uint32_t seen;

	store_seq(&r->short_of, 1);
	if (is_final(d, certain)) {
		ldfs_event_notify(&r->freed); /* threads that wait look again */
		return;
	}
	/* Not `low`: every store would wake it. */
	seen = ldfs_event_prepare(&d->progress);
	if (ldfs_released(d))
		ldfs_event_cancel(&d->progress);
	else
		ldfs_event_wait(&d->progress, seen, ldfs_deadline(AGAIN_NS));
}

/* How many free slots are wanted, by how many more are in use than at the last look. */
static void look_ahead(struct keeper *k)
{
	struct ldfs_ring *r = &k->d->ring;
	uint64_t now = ldfs_now_ns(), passed = now - k->then_ns, ahead = 0;
	uint32_t used = load_seq(&r->in_use), more = used > k->then_used ? used - k->then_used : 0;

	if (passed < AHEAD_NS / 30)
		return;
	if (passed < 10ull * AHEAD_NS)
		ahead = (uint64_t)more * AHEAD_NS / passed;
	ahead = ahead > used / 2 ? ahead : used / 2;
	ahead = ahead > r->least / 4 ? ahead : r->least / 4;
	store_seq(&r->ahead, ahead < r->reserved ? (uint32_t)ahead : r->reserved);
	k->then_ns = now;
	k->then_used = used;
}

/* False: nothing was wanted. */
static bool grow(struct keeper *k)
{
	ldfs_dump *d = k->d;
	struct ldfs_ring *r = &d->ring;
	uint32_t count, link;
	bool certain, allowed;

	if (r->follows && k->leads)
		look_ahead(k);
	link = ldfs_pool_plan(r, part_of(r), &count);
	if (!link)
		return false;
	allowed = memory_for(d, count, &certain);
	if (ldfs_pool_grow(r, link, count, allowed))
		no_memory(d, certain);
	else
		add_relaxed(&d->spilled, count);
	return true;
}

/* ------------------------------------------------------------------ give back */

static bool gives_back(const struct keeper *k)
{
	const struct ldfs_ring *r = &k->d->ring;

	return k->d->target.fd >= 0 && load_seq(&r->made) > r->least;
}

/*
 * Twice what was in use lately stays, and what INIT made. Less by and by: stores come in bursts. No
 * store finds the pool smaller than INIT made it: so many slots are in use then.
 */
static void give_back(struct keeper *k)
{
	struct ldfs_ring *r = &k->d->ring;
	uint32_t used = load_seq(&r->in_use), made = load_seq(&r->made), keep;

	k->lately = used > k->lately / 8 * 7 ? used : k->lately / 8 * 7;
	keep = k->lately * 2ull < r->least ? r->least : k->lately * 2;
	if (made <= keep || (keep > r->least && made - keep < made / 8))
		return;
	store_seq(&r->ahead, r->least / 4);
	while (made > keep && !ldfs_released(k->d)) {
		uint32_t gone = ldfs_pool_shrink(r, made - keep);

		if (!gone)
			break;
		made -= gone;
	}
	ldfs_pool_split(r);
}

/* ------------------------------------------------------------------ the thread */

static bool wants_more(const struct ldfs_ring *r)
{
	return ldfs_ring_can_grow(r) &&
	       ldfs_ring_wanted(r, load_seq(&r->in_use)) >= load_seq(&r->made);
}

/*
 * Whether there is memory for a slot for each granule: then fault-around takes no slot from a store
 * elsewhere. Asked while stores take slots, and once a second.
 */
static void look_for_memory(struct keeper *k)
{
	struct ldfs_ring *r = &k->d->ring;
	uint32_t used = load_seq(&r->in_use);
	uint64_t now = ldfs_now_ns();

	if ((used == k->looked && now - k->looked_ns < OLD_NS) || !ldfs_ring_can_grow(r))
		return;
	k->looked = used;
	k->looked_ns = now;
	store_relaxed(&r->short_of,
		      !ldfs_headroom_ram((uint64_t)(k->d->granules - r->least) * r->slot_size));
}

static void wait_till_low(struct keeper *k)
{
	struct ldfs_ring *r = &k->d->ring;
	uint32_t seen = ldfs_event_prepare(&r->low);

	if (wants_more(r) || ldfs_released(k->d)) {
		ldfs_event_cancel(&r->low);
	} else if (!ldfs_event_wait(&r->low, seen,
				    k->leads && r->follows ? ldfs_deadline(LOOK_NS) : UINT64_MAX)) {
		look_for_memory(k);
		if (gives_back(k))
			give_back(k);
	}
}

static void *keep(ldfs_dump *d, bool leads)
{
	struct keeper k = { .d = d, .leads = leads, .then_ns = ldfs_now_ns(), .looked = NO_SLOT };
	unsigned turns = 0;

	if (leads && d->ring.follows)
		look_for_memory(&k);
	while (!ldfs_released(d) && (d->ring.follows || ldfs_ring_can_grow(&d->ring))) {
		wait_till_low(&k);
		if (!wants_more(&d->ring) || ldfs_released(d) || grow(&k))
			turns = 0;
		else
			ldfs_event_soon(&turns); /* other keepers are making what is wanted */
	}
	ldfs_threads_ended(d);
	return NULL;
}

void *ldfs_keeper_main(void *dump)
{
	return keep(dump, true);
}

void *ldfs_keeper_more_main(void *dump)
{
	return keep(dump, false);
}
