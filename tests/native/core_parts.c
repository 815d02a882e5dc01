/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * core_parts.c - parts of the core by themselves: every step from every state, the pool's two
 * stacks, the swap. Prints what is wrong, then "right" when nothing was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/within.h"
#include "state/state.h"

#define STATES 9
#define SLOTS 5u
#define CHECK(what)                                                       \
	do {                                                              \
		if (!(what)) {                                            \
			printf("line %d: not so: %s\n", __LINE__, #what); \
			wrong++;                                          \
		}                                                         \
	} while (0)

static int wrong;

/* ------------------------------------------------------------------ granules */

/* A dump of one granule in `state`. */
static ldfs_dump *dump_in(uint8_t state)
{
	static _Atomic uint8_t states[1], dirty[1];
	static _Atomic uint32_t slots[1];
	static uint64_t sums[1];
	static uint8_t how[1];
	static ldfs_dump d;

	memset(&d, 0, sizeof(d));
	states[0] = state;
	how[0] = LDFS_BY_FAULT;
	sums[0] = 0;
	d.granules = 1;
	d.remaining = 1;
	d.state = states;
	d.slot_of = slots;
	d.checksum = sums;
	d.how = how;
	d.table.dirty = dirty;
	return &d;
}

/* `to[state]`: where the step leads from there; the same state: it refuses. */
static void check_step(const char *name, bool (*step)(ldfs_dump *, uint32_t), const uint8_t *to)
{
	for (uint8_t s = 0; s < STATES; s++) {
		ldfs_dump *d = dump_in(s);
		bool taken = step(d, 0);
		bool ended = to[s] != s && to[s] >= LDFS_G_SAVED;

		if (ldfs_state(d, 0) != to[s] || taken != (to[s] != s) || d->remaining != !ended) {
			printf("%s from %u: state %u, said %d, %lu remain\n", name, s,
			       ldfs_state(d, 0), taken, (unsigned long)d->remaining);
			wrong++;
		}
	}
}

static bool saved(ldfs_dump *d, uint32_t g)
{
	return ldfs_step_saved(d, g, 42);
}

static void check_steps(void)
{
	/* from: ARMED CLAIMED IN_SLOT SWEEPING STEALING STOLEN SAVED HOLE LOST */
	check_step("claim", ldfs_step_claim, (uint8_t[]){ 1, 1, 2, 3, 4, 5, 6, 7, 8 });
	check_step("steal", ldfs_step_steal, (uint8_t[]){ 0, 1, 2, 4, 4, 5, 6, 7, 8 });
	check_step("sweep", ldfs_step_sweep, (uint8_t[]){ 3, 1, 2, 3, 4, 5, 6, 7, 8 });
	check_step("lose", ldfs_step_lose, (uint8_t[]){ 8, 1, 2, 8, 4, 5, 6, 7, 8 });
	check_step("saved", saved, (uint8_t[]){ 0, 1, 6, 3, 4, 5, 6, 7, 8 });
	check_step("slot_lost", ldfs_step_slot_lost, (uint8_t[]){ 0, 1, 8, 3, 4, 5, 6, 7, 8 });
}

static void check_sweep_over(uint8_t from, uint8_t result, uint8_t to)
{
	ldfs_dump *d = dump_in(from);

	CHECK(ldfs_step_sweep_over(d, 0, result, 7) == to);
	CHECK(ldfs_state(d, 0) == to);
}

static void check_publish(uint8_t from, bool stolen, uint8_t to)
{
	ldfs_dump *d = dump_in(from);

	ldfs_step_publish(d, 0, 3, stolen);
	CHECK(ldfs_state(d, 0) == to);
	CHECK(d->slot_of[0] == 3);
}

static void check_copy_lost(uint8_t from)
{
	ldfs_dump *d = dump_in(from);

	ldfs_step_copy_lost(d, 0);
	CHECK(ldfs_state(d, 0) == LDFS_G_LOST);
	CHECK(d->remaining == 0 && d->lost == 1);
}

static void check_granules(void)
{
	check_steps();
	check_sweep_over(LDFS_G_SWEEPING, LDFS_G_SAVED, LDFS_G_SAVED);
	check_sweep_over(LDFS_G_SWEEPING, LDFS_G_HOLE, LDFS_G_HOLE);
	check_sweep_over(LDFS_G_SWEEPING, LDFS_G_LOST, LDFS_G_LOST);
	check_sweep_over(LDFS_G_STEALING, LDFS_G_SAVED, LDFS_G_CLAIMED);
	check_sweep_over(LDFS_G_STOLEN, LDFS_G_LOST, LDFS_G_IN_SLOT);
	check_sweep_over(LDFS_G_LOST, LDFS_G_SAVED, LDFS_G_LOST);
	check_publish(LDFS_G_CLAIMED, false, LDFS_G_IN_SLOT);
	check_publish(LDFS_G_STEALING, true, LDFS_G_STOLEN);
	check_copy_lost(LDFS_G_CLAIMED);
	check_copy_lost(LDFS_G_STEALING);
	check_publish(LDFS_G_CLAIMED, true, LDFS_G_IN_SLOT); /* the sweep's I/O ended meanwhile */
}

/* ---------------------------------------------------------------------- ring */

static void check_ring(void)
{
	struct ldfs_ring r = { 0 };
	uint32_t seen = 0, slot, link;

	CHECK(ldfs_ring_init(&r, ldfs_page_size(), 0, 1) == -EINVAL);
	CHECK(ldfs_ring_init(&r, ldfs_page_size(), 2, 1) == -EINVAL);
	CHECK(ldfs_ring_init(&r, ldfs_page_size(), SLOTS, SLOTS) == 0);
	CHECK(!ldfs_ring_can_grow(&r));
	while ((slot = ldfs_ring_take(&r)) != NO_SLOT) {
		CHECK(slot < SLOTS && !(seen & 1u << slot));
		seen |= 1u << slot;
		ldfs_slot_bytes(&r, slot)[ldfs_page_size() - 1] = 1;
	}
	CHECK(seen == (1u << SLOTS) - 1 && r.in_use == SLOTS && r.peak == SLOTS);
	ldfs_ring_give(&r, 3);
	CHECK(ldfs_ring_take(&r) == 3);
	CHECK(ldfs_ring_take_filled(&r) == 0);
	ldfs_ring_put(&r, 1);
	ldfs_ring_put(&r, 4);
	link = ldfs_ring_take_filled(&r); /* the last one first */
	CHECK(link == 4 + 1);
	CHECK(r.slots[4].next == 1 + 1 && r.slots[1].next == 0);
	CHECK(ldfs_ring_take_filled(&r) == 0);
	ldfs_ring_destroy(&r);
}

/* ---------------------------------------------------------------------- swap */

static bool is_writable(const uint8_t *at)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start, end;
	char rights[5] = "", line[512];
	bool found = false;

	while (!found && fgets(line, sizeof(line), maps))
		found = sscanf(line, "%lx-%lx %4s", &start, &end, rights) == 3 &&
			start <= (uintptr_t)at && (uintptr_t)at < end;
	fclose(maps);
	return found && rights[1] == 'w';
}

static void check_swap(void)
{
	uint64_t size = 16 * ldfs_page_size();
	uint8_t *live, *observer;
	ldfs_arena *a;

	CHECK(ldfs_arena_create(size + 1, &a) == -EINVAL);
	CHECK(ldfs_arena_create(size, &a) == 0);
	live = ldfs_arena_live(a);
	observer = a->observer;
	CHECK(ldfs_arena_swap(a) == -EINVAL); /* no shadow yet */
	for (int i = 0; i < 3; i++) {
		live[5] = (uint8_t)(i + 1);
		CHECK(ldfs_arena_prepare_shadow(a, LDFS_BACKEND_SIGSEGV) == 0);
		CHECK(is_writable(live)); /* INIT changes nothing for the machine */
		CHECK(ldfs_arena_swap(a) == 0);
		CHECK(ldfs_arena_live(a) == live && a->observer == observer);
		CHECK(!is_writable(live) && !is_writable(live + size - 1));
		CHECK(live[5] == i + 1 && observer[5] == i + 1);
		CHECK(ldfs_arena_unprotect_all(a, LDFS_BACKEND_SIGSEGV) == 0);
		CHECK(is_writable(live));
		live[6] = (uint8_t)(i + 7);
		CHECK(observer[6] == i + 7); /* still the same memory */
	}
	CHECK(ldfs_arena_destroy(a) == 0);
}

/* ----------------------------------------------------------------- page tables */

#define AT(page) ((uint64_t)(page) * ldfs_page_size())

/* Whether exactly the pages of `bits`, of the first 64, are so. */
static bool has(const struct ldfs_pagemap *p, const uint8_t *view, enum ldfs_mapped what,
		uint64_t bits)
{
	uint64_t start, end = 0, found = 0;

	while (ldfs_pagemap_next(p, view, end, AT(64), what, &start, &end))
		for (uint64_t page = start / ldfs_page_size(); page < end / ldfs_page_size();
		     page++)
			found |= 1ULL << page;
	return found == bits;
}

/* By every way to ask there is. */
static bool maps(const ldfs_arena *a, const uint8_t *view, uint64_t bits)
{
	struct ldfs_pagemap p, slow;
	bool right;

	ldfs_pagemap_open(&p, a);
	slow = (struct ldfs_pagemap){ .fd = p.fd, .page = p.page, .scan = false };
	right = has(&p, view, LDFS_MAPPED, bits) && has(&p, view, LDFS_MAPPED_NOT, ~bits) &&
		has(&slow, view, LDFS_MAPPED, bits) && has(&slow, view, LDFS_MAPPED_NOT, ~bits);
	ldfs_pagemap_close(&p);
	return right;
}

static void punch(const ldfs_arena *a, unsigned page)
{
	CHECK(!fallocate(a->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)AT(page),
			 ldfs_page_size()));
}

/* A view is filled where pages are, and a kept one where they came. `size`: by how many threads. */
static void check_fill(uint64_t size)
{
	ldfs_arena *a;
	uint8_t *live;

	CHECK(ldfs_arena_create(size, &a) == 0);
	live = ldfs_arena_live(a);
	madvise(live, size, MADV_RANDOM); /* no entries but those of the stores */
	live[AT(0)] = live[AT(1)] = live[AT(40)] = live[size - 1] = 1;
	CHECK(pwrite(a->memfd, "x", 1, (off_t)AT(25)) == 1); /* a page that live does not map */
	CHECK(maps(a, live, 3 | 1ULL << 40));
	CHECK(ldfs_arena_prepare_shadow(a, LDFS_BACKEND_SIGSEGV) == 0);
	CHECK(ldfs_arena_prepare_observer(a) == 0);
	CHECK(maps(a, a->shadow, 3 | 1ULL << 25 | 1ULL << 40));
	CHECK(maps(a, a->observer, 3 | 1ULL << 25 | 1ULL << 40));
	CHECK(ldfs_arena_resident(a) == (int64_t)AT(5));
	CHECK(ldfs_arena_swap(a) == 0 && !is_writable(live) && is_writable(a->spare));
	CHECK(ldfs_arena_unprotect_all(a, LDFS_BACKEND_SIGSEGV) == 0);
	ldfs_arena_close(a, LDFS_BACKEND_SIGSEGV, 0, AT(32));
	CHECK(!is_writable(a->spare + AT(31)) && is_writable(a->spare + AT(32)));
	CHECK(is_writable(live));
	live[AT(2)] = live[AT(50)] = 1;
	punch(a, 40);
	CHECK(maps(a, a->spare, 3)); /* what was live, and knows nothing of page 25 */
	CHECK(ldfs_arena_prepare_shadow(a, LDFS_BACKEND_SIGSEGV) == 0);
	CHECK(ldfs_arena_prepare_observer(a) == 0);
	CHECK(maps(a, a->shadow, 7 | 1ULL << 25 | 1ULL << 50));
	CHECK(maps(a, a->observer, 7 | 1ULL << 25 | 1ULL << 50));
	CHECK(!is_writable(a->shadow) && !is_writable(a->shadow + size - 1));
	CHECK(ldfs_arena_resident(a) == (int64_t)AT(6));
	CHECK(ldfs_arena_destroy(a) == 0);
}

/* Userfaultfd protects every page of the shadow, again where a page has lost its protection. */
static void check_guard(void)
{
	struct ldfs_pagemap p;
	ldfs_arena *a;

	CHECK(ldfs_arena_create(AT(64), &a) == 0);
	memset(a->live, 1, AT(8));
	if (!ldfs_uffd_make(&a->uffd, LDFS_BACKEND_UFFD, -1, false)) {
		ldfs_pagemap_open(&p, a);
		for (int i = 0; i < 2; i++) {
			CHECK(ldfs_arena_prepare_shadow(a, LDFS_BACKEND_UFFD) == 0);
			CHECK(!p.scan || has(&p, a->shadow, LDFS_MAPPED_GUARDED, ~0ULL));
			CHECK(maps(a, a->shadow, i ? 0xf7 : 0xff));
			punch(a, 3);
			CHECK(!ldfs_uffd_unprotect(a, a->shadow + AT(3), ldfs_page_size()));
			CHECK(!p.scan || has(&p, a->shadow, LDFS_MAPPED_GUARDED, ~8ULL));
		}
		ldfs_pagemap_close(&p);
		close(a->uffd.fd);
		a->uffd.fd = -1;
	}
	CHECK(ldfs_arena_destroy(a) == 0);
}

/* --------------------------------------------------------------- huge mappings */

/* Where there are none to be had, there is nothing to tell apart. */
static void check_huge(void)
{
	uint64_t size = 2 * ldfs_page_huge();
	ldfs_arena *a;

	CHECK(ldfs_arena_create(size, &a) == 0);
	CHECK(!ldfs_vma_all_huge(a->live) && !ldfs_vma_all_huge(a->observer));
	memset(a->live, 1, size);
	CHECK(!ldfs_vma_all_huge(a->live));
	if (!madvise(a->live, size, 25 /* MADV_COLLAPSE */)) {
		CHECK(ldfs_vma_all_huge(a->live));
		CHECK(ldfs_arena_prepare_observer(a) == 0 && ldfs_vma_all_huge(a->observer));
		CHECK(!mprotect(a->live + ldfs_page_size(), size - ldfs_page_size(), PROT_READ));
		a->live[0] = 2;
		CHECK(!ldfs_vma_all_huge(a->live) && ldfs_vma_all_huge(a->observer));
	}
	CHECK(ldfs_arena_destroy(a) == 0);
}

int main(void)
{
	check_granules();
	check_ring();
	check_swap();
	check_fill(AT(65));
	check_fill(512u << 20);
	check_guard();
	check_huge();
	if (!wrong)
		puts("right");
	return wrong != 0;
}
