/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * first.c - what many threads pay together for the first stores after the instant, and what INIT
 * costs.
 *
 * first: the memory is divided among the threads, and each stores one word to each granule of its
 * part, in order, once before and once after start(). The time is that of all threads together.
 *
 * init: INIT, then a dump in which one granule of 100 is stored to, then INIT again.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>

#include "peer.h"

#define CHANGED_SHARE 100 /* one granule of so many is stored to in the dump between two INITs */

struct part {
	pthread_t thread;
	struct bench *b;
	uint64_t first, end, stores;
};

static struct part parts[WRITERS_MOST];
static pthread_barrier_t together;
static bool over;

static void *walk_part(void *arg)
{
	struct part *p = arg;

	for (;;) {
		pthread_barrier_wait(&together);
		if (over)
			return NULL;
		for (uint64_t i = p->first; i < p->end; i++) {
			*(volatile uint64_t *)(p->b->memory + i * p->b->opt.granule) = i;
			p->stores++;
		}
		pthread_barrier_wait(&together);
	}
}

static uint64_t walk_all(void)
{
	uint64_t before;

	pthread_barrier_wait(&together);
	before = now_ns();
	pthread_barrier_wait(&together);
	return now_ns() - before;
}

static int begin(struct bench *b)
{
	uint64_t count = b->opt.size / b->opt.granule;

	if (pthread_barrier_init(&together, NULL, b->opt.writers + 1))
		return -EAGAIN;
	for (unsigned i = 0; i < b->opt.writers; i++) {
		parts[i] = (struct part){ .b = b,
					  .first = count * i / b->opt.writers,
					  .end = count * (i + 1) / b->opt.writers };
		if (pthread_create(&parts[i].thread, NULL, walk_part, &parts[i]))
			return -EAGAIN;
	}
	return 0;
}

static void end(struct bench *b)
{
	over = true;
	pthread_barrier_wait(&together);
	for (unsigned i = 0; i < b->opt.writers; i++)
		pthread_join(parts[i].thread, NULL);
}

static uint64_t stores(const struct bench *b)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < b->opt.writers; i++)
		sum += parts[i].stores;
	return sum;
}

static uint64_t minor_faults(void)
{
	struct rusage u;

	return getrusage(RUSAGE_SELF, &u) ? 0 : (uint64_t)u.ru_minflt;
}

/* One turn; prints it. */
static int turn(struct bench *b, const char *comma)
{
	uint64_t plain = walk_all(), before = stores(b), counted, took;
	int rc = b->peer->prepare(b);

	if (!rc)
		rc = b->peer->start(b);
	if (rc)
		return rc;
	counted = minor_faults();
	took = walk_all();
	counted = minor_faults() - counted;
	rc = b->peer->finish(b);
	printf("%s{\"plain_ns\":%lu,\"armed_ns\":%lu,\"stores\":%lu,\"served\":%lu}", comma, plain,
	       took, stores(b) - before, b->peer == &forked ? counted : b->served);
	return rc;
}

int first(struct bench *b)
{
	int rc;

	if (!b->opt.granule)
		b->opt.granule = PAGE;
	if (!b->opt.writers || b->opt.size % b->opt.granule)
		return -EINVAL;
	rc = begin(b);
	if (rc)
		return rc;
	printf("{\"way\":\"%s\",\"granules\":%lu,\"turns\":[", b->peer->name,
	       b->opt.size / b->opt.granule);
	for (unsigned i = 0; !rc && i < b->opt.dumps; i++)
		rc = turn(b, i ? "," : "");
	puts("]}");
	end(b);
	return rc;
}

static uint64_t change(struct bench *b, uint64_t granule)
{
	uint64_t changed = 0;

	for (uint64_t at = 0; at < b->opt.size; at += granule * CHANGED_SHARE, changed++)
		*(volatile uint64_t *)(b->memory + at) += 1;
	return changed;
}

int init(struct bench *b)
{
	uint64_t granule = b->opt.granule ? b->opt.granule : 65536, changed = 0;
	const char *comma = "";

	if (b->target < 0)
		return -EINVAL;
	printf("{\"way\":\"%s\",\"size\":%lu,\"inits_ns\":[", b->peer->name, b->opt.size);
	for (unsigned i = 0; i < b->opt.dumps + 1; i++, comma = ",") {
		uint64_t before = now_ns(), took;
		int rc = b->peer->prepare(b);

		took = now_ns() - before;
		if (!rc && i < b->opt.dumps) {
			rc = b->peer->start(b);
			changed += change(b, granule);
			if (!rc)
				rc = b->peer->sweep(b);
		}
		if (rc)
			return rc;
		rc = b->peer->finish(b);
		if (rc)
			return rc;
		printf("%s%lu", comma, took);
	}
	printf("],\"changed\":%lu,\"granules\":%lu}\n", changed, b->opt.size / granule);
	return 0;
}
