/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pool.c - the memory of the slots: reserved at INIT, made and given back in parts by the keepers.
 *
 * A slot that was given back keeps its number and its address, and has no memory until it is made
 * again. Keepers share the numbers under a lock that no other thread takes; handlers meet them only
 * at the stack of free slots and at the counts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "state/state.h"

#define HUGE (2ull << 20)
#define AT_ONCE 512                /* slots given back together */
#define FEWER_BYTES (256ull << 20) /* reserved where all cannot be */

#ifndef MADV_COLD
#define MADV_COLD 20 /* Linux 5.4 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* ----------------------------------------------------------------------- grow */

/*
 * In pieces: the kernel holds the lock of the address space for the whole of a call, and handlers
 * need it.
 */
static int populate(const struct ldfs_ring *r, uint32_t first, uint32_t count)
{
	uint8_t *at = ldfs_slot_bytes(r, first), *end = at + count * r->slot_size;

	while (at < end) {
		uint64_t left = (uint64_t)(end - at), piece = HUGE - (uintptr_t)at % HUGE;

		piece = piece < left ? piece : left;
		if (madvise(at, piece, MADV_POPULATE_WRITE))
			return errno == EFAULT ? -ENOMEM : -errno;
		at += piece;
	}
	return 0;
}

/* Chain [first, first + count) by `next`, as index + 1, before `rest`. */
static uint32_t chain(struct ldfs_ring *r, uint32_t first, uint32_t count, uint32_t rest)
{
	for (uint32_t slot = first + count; slot-- > first;) {
		store_relaxed(&r->slots[slot].next, rest);
		rest = slot + 1;
	}
	return rest;
}

static uint32_t next_of(const struct ldfs_ring *r, uint32_t link)
{
	return load_relaxed(&r->slots[link - 1].next);
}

/* Slots from `link` on whose numbers follow each other; *rest is what comes after them. */
static uint32_t stretch(const struct ldfs_ring *r, uint32_t link, uint32_t *rest)
{
	uint32_t count = 1;

	while ((*rest = next_of(r, link + count - 1)) == link + count)
		count++;
	return count;
}

/* Up to `most` slots that have no memory, as a chain; those that had some come first. */
static uint32_t take_away(struct ldfs_ring *r, uint32_t most, uint32_t *count)
{
	uint32_t first = r->away, last = 0, left;

	*count = 0;
	for (uint32_t link = first; link && *count < most; link = next_of(r, link)) {
		last = link;
		++*count;
	}
	if (last) {
		r->away = next_of(r, last);
		store_relaxed(&r->slots[last - 1].next, 0);
		return first;
	}
	left = r->reserved - r->planned;
	*count = most < left ? most : left;
	first = chain(r, r->planned, *count, 0);
	r->planned += *count;
	return first;
}

static void put_away(struct ldfs_ring *r, uint32_t link)
{
	uint32_t last = link;

	if (!link)
		return;
	while (next_of(r, last))
		last = next_of(r, last);
	store_relaxed(&r->slots[last - 1].next, r->away);
	r->away = link;
}

/* The rest of the chain from which slot on there was no memory; 0: all of it has some. */
static uint32_t make_chain(struct ldfs_ring *r, uint32_t link, int *rc)
{
	uint32_t rest;

	for (; link; link = rest) {
		uint32_t count = stretch(r, link, &rest);

		*rc = populate(r, link - 1, count);
		if (*rc) {
			madvise(ldfs_slot_bytes(r, link - 1), count * r->slot_size, MADV_DONTNEED);
			return link;
		}
		for (uint32_t slot = link - 1; slot < link - 1 + count; slot++)
			ldfs_ring_push(r, slot);
		raise_u64(&r->most, add_seq(&r->made, count) + count);
		ldfs_event_notify_some(&r->freed, count);
	}
	return 0;
}

uint32_t ldfs_pool_plan(struct ldfs_ring *r, uint32_t most, uint32_t *count)
{
	uint32_t made, limit, link = 0;

	*count = 0;
	pthread_mutex_lock(&r->keeping);
	made = load_seq(&r->made) + r->growing;
	limit = load_seq(&r->limit);
	if (made < limit && ldfs_ring_wanted(r, load_seq(&r->in_use)) >= made) {
		link = take_away(r, limit - made < most ? limit - made : most, count);
		r->growing += *count;
	}
	pthread_mutex_unlock(&r->keeping);
	return link;
}

uint32_t ldfs_pool_growing(struct ldfs_ring *r)
{
	uint32_t growing;

	pthread_mutex_lock(&r->keeping);
	growing = r->growing;
	pthread_mutex_unlock(&r->keeping);
	return growing;
}

bool ldfs_pool_settle(struct ldfs_ring *r)
{
	bool settled;

	pthread_mutex_lock(&r->keeping);
	settled = r->growing == 0;
	if (settled)
		store_seq(&r->limit, load_seq(&r->made));
	pthread_mutex_unlock(&r->keeping);
	return settled;
}

int ldfs_pool_grow(struct ldfs_ring *r, uint32_t link, uint32_t count, bool allowed)
{
	int rc = -ENOMEM;
	uint32_t left = allowed ? make_chain(r, link, &rc) : link;

	pthread_mutex_lock(&r->keeping);
	put_away(r, left);
	r->growing -= count;
	pthread_mutex_unlock(&r->keeping);
	return left ? rc : 0;
}

/* ------------------------------------------------------------------ give back */

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/*
 * Slots that are free are the keeper's once they are popped. A reader that found one by the state
 * of a granule reads zeros, and then sees that the state is another.
 */
uint32_t ldfs_pool_shrink(struct ldfs_ring *r, uint32_t most)
{
	uint32_t slots[AT_ONCE], count = 0, link = 0;

	while (count < most && count < AT_ONCE && (slots[count] = ldfs_ring_pop(r)) != NO_SLOT)
		count++;
	sub_seq(&r->made, count);
	qsort(slots, count, sizeof(*slots), by_number);
	for (uint32_t end = count, i; end > 0; end = i) {
		i = end - 1;
		while (i > 0 && slots[i - 1] == slots[i] - 1)
			i--;
		madvise(ldfs_slot_bytes(r, slots[i]), (end - i) * r->slot_size, MADV_DONTNEED);
		link = chain(r, slots[i], end - i, link);
	}
	pthread_mutex_lock(&r->keeping);
	put_away(r, link);
	pthread_mutex_unlock(&r->keeping);
	return count;
}

/*
 * The kernel frees a huge page when its last slot is given back. Of one that still has some it
 * splits off the others when it is told that the page is not in use much: to hand, it stays.
 */
void ldfs_pool_split(struct ldfs_ring *r)
{
	uint8_t *end;

	pthread_mutex_lock(&r->keeping);
	end = ldfs_slot_bytes(r, r->planned);
	pthread_mutex_unlock(&r->keeping);
	for (uint8_t *at = r->bytes; r->slot_size < HUGE && at < end; at += HUGE)
		madvise(at, (uint64_t)(end - at) < HUGE ? (uint64_t)(end - at) : HUGE, MADV_COLD);
}

/* -------------------------------------------------------------- begin and end */

/* Slots are copies of what its owner may keep out of core files and children. */
static int keep_private(const struct ldfs_ring *r)
{
	uint64_t size = r->reserved * r->slot_size;

	return madvise(r->bytes, size, MADV_DONTFORK) || madvise(r->bytes, size, MADV_DONTDUMP)
		       ? -errno
		       : 0;
}

/*
 * After mlockall(MCL_FUTURE) the kernel would make all of a new mapping at once, and would give
 * none of it back. Of one without rights it makes nothing.
 *
 * A seccomp filter may refuse munlock (EPERM in systemd-nspawn, ENOSYS elsewhere). That matters
 * only if the mapping is locked, of which MADV_DONTNEED then says EINVAL.
 */
static int unlock(void *map, uint64_t size)
{
	if (!munlock(map, size) || !madvise(map, LDFS_PAGE_SIZE, MADV_DONTNEED))
		return 0;
	return -ENOMEM; /* no such memory can be had */
}

static int map_unlocked(struct ldfs_ring *r, uint64_t size)
{
	void *map = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return -ENOMEM;
	if (unlock(map, size) || mprotect(map, size, PROT_READ | PROT_WRITE)) {
		munmap(map, size);
		return -ENOMEM;
	}
	r->map = map;
	r->map_size = size;
	return 0;
}

/* Huge pages are there several times as fast. A kernel without them says EINVAL. */
static int map_slots(struct ldfs_ring *r, uint32_t slots)
{
	uint64_t size = slots * r->slot_size, slack = size >= HUGE ? HUGE : 0;
	int rc = map_unlocked(r, size + slack);

	if (rc)
		return rc;
	r->reserved = slots;
	store_seq(&r->limit, slots);
	r->bytes = slack ? r->map + (HUGE - (uintptr_t)r->map % HUGE) % HUGE : r->map;
	if (slack)
		madvise(r->bytes, size, MADV_HUGEPAGE);
	return 0;
}

/* A process may lack the right to so many addresses, or to so much locked memory. */
static int reserve(struct ldfs_ring *r, uint32_t slots)
{
	uint64_t fewer = FEWER_BYTES / r->slot_size;
	int rc = map_slots(r, slots);

	if (rc && fewer > r->least && fewer < slots)
		rc = map_slots(r, (uint32_t)fewer);
	if (rc)
		rc = map_slots(r, r->least);
	return rc ? rc : keep_private(r);
}

int ldfs_ring_init(struct ldfs_ring *r, uint64_t slot_size, uint64_t made, uint64_t limit)
{
	uint32_t link, count;
	int rc;

	if (made == 0 || limit < made || limit >= UINT32_MAX)
		return -EINVAL;
	pthread_mutex_init(&r->keeping, NULL);
	r->slot_size = slot_size;
	r->least = (uint32_t)made;
	r->slots = calloc(limit, sizeof(*r->slots));
	rc = r->slots ? reserve(r, (uint32_t)limit) : -ENOMEM;
	r->grows = r->reserved > r->least;
	if (!rc) {
		link = take_away(r, (uint32_t)made, &count);
		r->growing = count;
		rc = ldfs_pool_grow(r, link, count, true);
	}
	if (rc)
		ldfs_ring_destroy(r);
	return rc;
}

void ldfs_ring_destroy(struct ldfs_ring *r)
{
	if (r->map)
		munmap(r->map, r->map_size);
	free(r->slots);
	r->map = r->bytes = NULL;
	r->slots = NULL;
}
