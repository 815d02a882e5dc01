/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * save.c - copy-on-write: before a store to an armed granule may go on, the granule's bytes are
 * made safe, and then the granule is made writable. [signal], all of it: see inside.c for what that
 * means. docs/concurrency.md, "The fault path", has the steps by number.
 */
#include <errno.h>

#include "base/copy.h"
#include "fault/within.h"

#define BLOCK_BYTES (1u << 20)      /* fault-around looks and reaches as far */
#define BLOCK_BYTES_EACH (8u << 20) /* the same, where each granule can have a slot */
#define BLOCK_GRANULES 256          /* at the most: each lone store looks at all of them */
#define AROUND_BYTES (1u << 20)     /* of neighbours that one store waits for, at the most */

/* ------------------------------------------------------------------ slots */

enum slot_answer { SLOT_TAKEN, SLOT_LOOK_AGAIN, SLOT_NONE };

static bool may_wait(const ldfs_dump *d)
{
	if (load_seq(&d->gave_up) || d->policy == LDFS_POLICY_FAIL)
		return false;
	/* Without a target nothing frees a slot: only a pool that grows is waited for. */
	return d->target.fd >= 0 || d->at_limit == LDFS_AT_LIMIT_HOLD ||
	       ldfs_ring_can_grow(&d->ring);
}

static bool needs_slot(const ldfs_dump *d, uint32_t g)
{
	uint8_t s = ldfs_state(d, g);

	return s == LDFS_G_ARMED || s == LDFS_G_SWEEPING;
}

static void wait_for_slot(ldfs_dump *d, uint32_t g, uint64_t *deadline_ns)
{
	uint64_t before = ldfs_now_ns();
	uint32_t seen;

	if (*deadline_ns == 0)
		*deadline_ns = ldfs_deadline(d->stall_deadline_ns);
	add_relaxed(&d->slot_waits, 1);
	if (ldfs_ring_can_grow(&d->ring))
		ldfs_event_notify(&d->ring.low);
	seen = ldfs_event_prepare(&d->ring.freed);
	if (ldfs_ring_has_free(&d->ring) || !may_wait(d) || ldfs_released(d) || !needs_slot(d, g)) {
		ldfs_event_cancel(&d->ring.freed);
	} else if (!ldfs_ring_wait(&d->ring, g, seen, *deadline_ns) && needs_slot(d, g)) {
		ldfs_fail(d, LDFS_OP_WAIT_SLOT, ETIMEDOUT,
			  ldfs_granule_start(d, g) / LDFS_PAGE_SIZE);
		ldfs_give_up(d);
	}
	add_relaxed(&d->slot_wait_ns, ldfs_now_ns() - before);
}

/* LOOK_AGAIN: waited, the granule may be safe by now. NONE: the policy says to lose it. */
static enum slot_answer take_slot(ldfs_dump *d, uint32_t g, uint32_t *slot, uint64_t *deadline_ns)
{
	*slot = ldfs_ring_take(&d->ring);
	if (*slot != NO_SLOT)
		return SLOT_TAKEN;
	if (!may_wait(d)) {
		/* Once more: the keeper adds the last slots before it says that it adds no more. */
		*slot = ldfs_ring_take(&d->ring);
		return *slot != NO_SLOT ? SLOT_TAKEN : SLOT_NONE;
	}
	wait_for_slot(d, g, deadline_ns);
	return SLOT_LOOK_AGAIN;
}

/* ------------------------------------------------------------------- copy */

/*
 * A granule without holes is copied from the observer view. Where there may be holes, reading the
 * view would allocate pages in them; pread of the memfd does not.
 */
static bool copy_granule(ldfs_dump *d, uint32_t g, uint8_t *to)
{
	uint64_t start = ldfs_granule_start(d, g), length = ldfs_granule_length(d, g);
	int rc;

	if (ldfs_granule_full(d, g)) {
		copy_past_cache(to, d->arena->observer + start, length);
		return true;
	}
	rc = ldfs_read_all(d->arena->memfd, to, length, start);
	if (rc)
		ldfs_fail(d, LDFS_OP_READ_ARENA, -rc, start / LDFS_PAGE_SIZE);
	return rc == 0;
}

static void save_in_slot(ldfs_dump *d, uint32_t g, uint32_t slot, bool stolen)
{
	if (!copy_granule(d, g, ldfs_slot_bytes(&d->ring, slot))) {
		ldfs_step_copy_lost(d, g);
		ldfs_ring_need_none(&d->ring, g, g + 1);
		ldfs_ring_give(&d->ring, slot);
		return;
	}
	d->ring.slots[slot].granule = g;
	ldfs_step_publish(d, g, slot, stolen);
	ldfs_ring_put(&d->ring, slot);
	/* A thread that found no slot may wait for one for this very granule. */
	ldfs_ring_need_none(&d->ring, g, g + 1);
}

/* ------------------------------------------------------------- make safe */

/* What a thread that saves one granule has waited for. */
struct wait {
	uint64_t deadline_ns; /* 0: not begun */
	unsigned turns;       /* of ldfs_event_soon */
	bool woken;           /* perhaps for a slot that is free, and not taken yet */
};

/* It needs no slot now: the wake-up is another's. */
static void pass_on(ldfs_dump *d, struct wait *w)
{
	if (w->woken)
		ldfs_ring_pass_on(&d->ring);
	w->woken = false;
}

/* True: g is lost. */
static bool lose(ldfs_dump *d, uint32_t g, struct wait *w)
{
	/*
	 * With as many slots as granules, and none free: another thread holds a second one for the
	 * same granule, and gives it back at once.
	 */
	if (load_seq(&d->ring.made) >= d->granules) {
		ldfs_event_soon(&w->turns);
		return false;
	}
	if (!ldfs_step_lose(d, g))
		return false;
	ldfs_ring_need_none(&d->ring, g, g + 1);
	return true;
}

static void make_safe_waiting(ldfs_dump *d, uint32_t g, struct wait *w)
{
	uint32_t slot;

	while (!ldfs_released(d)) {
		uint8_t s = ldfs_state(d, g);

		if (s == LDFS_G_CLAIMED || s == LDFS_G_STEALING) {
			pass_on(d, w);
			ldfs_event_soon(&w->turns);
			continue;
		}
		if (s != LDFS_G_ARMED && s != LDFS_G_SWEEPING)
			return;
		switch (take_slot(d, g, &slot, &w->deadline_ns)) {
		case SLOT_LOOK_AGAIN:
			w->woken = true;
			continue;
		case SLOT_NONE:
			if (lose(d, g, w))
				return;
			continue;
		case SLOT_TAKEN:
			w->woken = false;
			break;
		}
		if (s == LDFS_G_ARMED ? ldfs_step_claim(d, g) : ldfs_step_steal(d, g)) {
			save_in_slot(d, g, slot, s == LDFS_G_SWEEPING);
			return;
		}
		ldfs_ring_give(&d->ring, slot);
	}
}

/* Steps 1 to 4: returns once the bytes of g are safe or lost, or the dump is released. */
static void make_safe(ldfs_dump *d, uint32_t g)
{
	struct wait w = { 0 };

	make_safe_waiting(d, g, &w);
	pass_on(d, &w);
}

/* ----------------------------------------------------------- fault-around */

/* Whether the pool has or can grow to a slot for each granule. */
static bool slot_for_each(const ldfs_dump *d)
{
	const struct ldfs_ring *r = &d->ring;

	return load_relaxed(&r->made) >= d->granules ||
	       (load_relaxed(&r->limit) >= d->granules && !load_relaxed(&r->short_of));
}

/*
 * Whether there is a slot for a granule that no store has asked for.
 *
 * Yes when the pool has a slot for each granule. Otherwise two things must hold. The first: a slot
 * taken here cannot cost another granule its bytes. It could where a store that finds no slot does
 * not wait but loses its granule (policy fail, given up). It could also where no target frees
 * slots, and behind a target that frees none just now (to_spare) stores need every slot that there
 * is, unless the pool can grow to a slot for each granule. The second: a quarter of the pool stays
 * free for stores elsewhere.
 */
static bool slot_to_spare(const ldfs_dump *d)
{
	const struct ldfs_ring *r = &d->ring;
	uint32_t made = load_relaxed(&r->made);

	if (made >= d->granules)
		return true;
	if (d->policy == LDFS_POLICY_FAIL || load_relaxed(&d->gave_up))
		return false;
	if (!slot_for_each(d) && (d->target.fd < 0 || load_relaxed(&r->to_spare) <= 0))
		return false;
	return made / 4 + load_relaxed(&r->in_use) < made;
}

/* Like make_safe(), but waits for, steals and loses nothing. False: g is not safe yet. */
static bool make_safe_at_once(ldfs_dump *d, uint32_t g)
{
	uint8_t s = ldfs_state(d, g);
	uint32_t slot;

	if (s == LDFS_G_CLAIMED || s == LDFS_G_SWEEPING || s == LDFS_G_STEALING)
		return false;
	if (s != LDFS_G_ARMED)
		return true;
	/* The sweep takes holes for less than a slot. */
	if (!ldfs_granule_full(d, g) || ldfs_released(d) || !slot_to_spare(d))
		return false;
	slot = ldfs_ring_take(&d->ring);
	if (slot == NO_SLOT)
		return false;
	if (!ldfs_step_claim(d, g)) {
		ldfs_ring_give(&d->ring, slot);
		return false;
	}
	if (load_relaxed(&d->ring.to_spare) > 0)
		add_relaxed(&d->ring.to_spare, -1);
	save_in_slot(d, g, slot, false);
	return true;
}

/*
 * Granules of the block that decides about neighbours. The larger it is, the fewer faults open all
 * of it, and the more a few scattered stores save in vain. That costs slots that others may want,
 * unless there is one for each granule. What userfaultfd opens costs a page fault more for each
 * page, also what was open before: there the smaller block is the faster one.
 */
static uint32_t block_of(const ldfs_dump *d)
{
	bool each = slot_for_each(d) && !ldfs_uffd_protects(d->backend);
	uint32_t block = (each ? BLOCK_BYTES_EACH : BLOCK_BYTES) >> d->granule_shift;

	return block < BLOCK_GRANULES ? block : BLOCK_GRANULES;
}

/*
 * How many neighbours to save along with a granule of [lo, hi]: two for each store that faulted
 * there before, so that n faults open n * n granules. Stores that are dense fault only a few times
 * in a block; where they are sparse, little is saved in vain. The store waits for all the copies,
 * so there is an upper limit.
 */
static uint32_t neighbours_wanted(const ldfs_dump *d, uint32_t lo, uint32_t hi)
{
	uint32_t wanted = 0, most = AROUND_BYTES >> d->granule_shift;

	for (uint32_t g = lo; g <= hi; g++)
		wanted += load_relaxed(&d->writable[g]) == LDFS_STORED_TO ? 2 : 0;
	return wanted < most ? wanted : most;
}

/*
 * Fault-around. Stores are often dense, and one mprotect costs about the same for many granules.
 * All granules of [*first, *last], both inclusive, are safe when this returns, and g is among them.
 * What decides how many that are is read without order: only speed depends on it.
 */
static void save_around(ldfs_dump *d, uint32_t g, uint32_t *first, uint32_t *last)
{
	uint32_t block = block_of(d);
	uint32_t lo = block ? g - g % block : g, hi = block ? lo + block - 1 : g;
	uint32_t wanted;

	hi = hi < d->granules ? hi : d->granules - 1;
	wanted = slot_to_spare(d) ? neighbours_wanted(d, lo, hi) : 0;
	while (wanted && *last < hi && make_safe_at_once(d, *last + 1)) {
		++*last;
		wanted -= !load_relaxed(&d->writable[*last]);
	}
	while (wanted && *first > lo && make_safe_at_once(d, *first - 1)) {
		--*first;
		wanted -= !load_relaxed(&d->writable[*first]);
	}
}

/* --------------------------------------------------------- make writable */

static uint32_t nearest_left(const ldfs_dump *d, uint32_t g)
{
	while (g > 0 && !load_relaxed(&d->writable[g - 1]))
		g--;
	return g;
}

static uint32_t nearest_right(const ldfs_dump *d, uint32_t g)
{
	while (g + 1 < d->granules && !load_relaxed(&d->writable[g + 1]))
		g++;
	return g;
}

static int widen_to(ldfs_dump *d, uint32_t g, uint32_t first, uint32_t last)
{
	for (uint32_t i = first; i <= last; i++) {
		if (i != g && ldfs_state(d, i) == LDFS_G_ARMED)
			add_relaxed(&d->widened, 1);
		make_safe(d, i);
	}
	return ldfs_protect_open(d, first, last);
}

/*
 * To make g alone writable would split a mapping (VMA) once more than our own limit or
 * vm.max_map_count allows. Opening everything as far as a granule that is writable already moves a
 * boundary instead of adding two. Opening the whole arena needs no boundary, and so always works.
 */
static int widen(ldfs_dump *d, uint32_t g)
{
	uint32_t left = nearest_left(d, g), right = nearest_right(d, g);
	bool on_left = left > 0, on_right = right + 1 < d->granules; /* a writable one */
	int error = ENOMEM;

	/* Without a neighbour the range to the arena's end alone would still be a split. */
	if (on_left && (!on_right || g - left <= right - g))
		error = widen_to(d, g, left, g);
	else if (on_right)
		error = widen_to(d, g, g, right);
	if (error == ENOMEM)
		error = widen_to(d, g, left, right);
	if (error == ENOMEM)
		error = widen_to(d, g, 0, d->granules - 1);
	return error;
}

/* Step 5. Only called when the bytes of g are safe, lost, or no longer wanted. */
static void make_writable(ldfs_dump *d, uint32_t g, bool stored)
{
	uint32_t first = g, last = g;
	int error = ENOMEM;

	if (ldfs_protect_may_split(d, g)) {
		if (stored && !load_relaxed(&d->writable[g]))
			save_around(d, g, &first, &last);
		error = ldfs_protect_open(d, first, last);
	}
	if (error == ENOMEM)
		error = widen(d, g);
	if (!error && stored)
		store_relaxed(&d->writable[g], LDFS_STORED_TO);
	/* The store faults again and this is tried again; a released dump is unprotected by
	 * RELEASE. EAGAIN: see uffd.c. */
	if (error && error != EAGAIN)
		ldfs_fail(d, LDFS_OP_PROTECT, error, ldfs_granule_start(d, g) / LDFS_PAGE_SIZE);
}

void ldfs_save_make_writable(ldfs_dump *d, uint32_t g, bool stored)
{
	/* START is at work and may still fail: what is saved now would belong to no instant. A
	 * store that faults here is tried again until START has ended. */
	if (load_seq(&d->phase) == LDFS_PHASE_READY)
		return;
	make_safe(d, g);
	make_writable(d, g, stored);
}
