/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * huge.c - what dumps cost memory of huge pages, with one thread: INIT, the stop, lone first
 * stores, the time until all of the memory is mapped by huge pages again after RELEASE, and then
 * the speed of stores at random, beside that before the first dump.
 */
#include <errno.h>
#include <unistd.h>

#include "memory/memory.h"
#include "peer.h"

#define STORES 100000u /* of one pass: some milliseconds */
#define PASSES 200     /* the fastest one counts: other work makes a pass slower, never faster */
#define LONE 64u       /* first stores in one dump, far from each other */
#define PATIENCE_NS 20000000000ull
#define POLL_US 1000

static uint64_t speed_ns(const struct bench *b)
{
	uint64_t least = UINT64_MAX;

	for (unsigned pass = 0; pass < PASSES; pass++) {
		uint64_t state, before = now_ns(), took;

		pattern_begin(&state, pass);
		for (unsigned i = 0; i < STORES; i++)
			*(volatile uint64_t *)(b->memory +
					       pattern_next(&state, UNIFORM, b->pages)) = i;
		took = now_ns() - before;
		least = took < least ? took : least;
	}
	return least;
}

static uint64_t lone_stores_ns(const struct bench *b)
{
	uint64_t stride = b->opt.size / LONE, before = now_ns();

	for (unsigned i = 0; i < LONE; i++)
		*(volatile uint64_t *)(b->memory + i * stride) = i;
	return (now_ns() - before) / LONE;
}

static bool is_whole(const struct bench *b)
{
	return b->opt.pages != LDFS_PAGES_THP || ldfs_vma_all_huge(b->memory);
}

/* PATIENCE_NS: it did not come to that. */
static uint64_t until_whole_ns(const struct bench *b)
{
	uint64_t before = now_ns();

	while (!is_whole(b) && now_ns() - before < PATIENCE_NS)
		usleep(POLL_US);
	return now_ns() - before;
}

static int dump_once(struct bench *b, const char *comma)
{
	uint64_t lone, split, whole, before = now_ns();
	int rc = b->peer->prepare(b);

	b->times.prepare = now_ns() - before;
	if (!rc)
		rc = b->peer->start(b);
	if (rc)
		return rc;
	lone = lone_stores_ns(b);
	if (b->target >= 0)
		rc = b->peer->sweep(b);
	split = !is_whole(b);
	if (b->peer->finish(b) || rc)
		return rc ? rc : -EIO;
	whole = until_whole_ns(b);
	printf("%s{\"prepare_ns\":%lu,\"arm_ns\":%lu,\"lone_ns\":%lu,\"split\":%lu,\"whole_ns\":%"
	       "lu,\"speed_ns\":%lu}",
	       comma, b->times.prepare, b->times.arm, lone, split, whole, speed_ns(b));
	return 0;
}

int huge(struct bench *b)
{
	int rc = 0;

	if (!is_whole(b))
		return -EOPNOTSUPP;
	printf("{\"way\":\"%s\",\"stores\":%u,\"speed_ns\":%lu,\"dumps\":[", b->peer->name, STORES,
	       speed_ns(b));
	for (unsigned i = 0; !rc && i < b->opt.dumps; i++)
		rc = dump_once(b, i ? "," : "");
	puts("]}");
	return rc;
}
