/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * granules.c - what a granule costs that several threads open at once: each stores once to every
 * granule of its share, in an order without neighbours. Wall time of all threads together, before
 * and after start(); nothing else happens meanwhile, and nothing is written to a target.
 */
#include <errno.h>
#include <pthread.h>

#include "peer.h"

#define STRIDE 1103 /* a prime: of no number of granules a divisor, unless that is a multiple */

struct share {
	pthread_t thread;
	struct bench *b;
	uint64_t first, count;
};

static pthread_barrier_t begin;

static uint64_t granule_of(const struct bench *b)
{
	return b->opt.granule ? b->opt.granule : PAGE;
}

static void *store_to_all(void *arg)
{
	const struct share *s = arg;
	uint64_t granule = granule_of(s->b);

	pthread_barrier_wait(&begin);
	for (uint64_t i = 0; i < s->count; i++)
		*(volatile uint64_t *)(s->b->memory +
				       (s->first + i * STRIDE % s->count) * granule) = i;
	return NULL;
}

static int pass(struct bench *b, uint64_t *ns)
{
	struct share shares[WRITERS_MOST];
	unsigned n = b->opt.writers;
	uint64_t all = b->opt.size / granule_of(b) / n, since;

	pthread_barrier_init(&begin, NULL, n + 1);
	for (unsigned i = 0; i < n; i++) {
		shares[i] = (struct share){ .b = b, .first = all * i, .count = all };
		if (pthread_create(&shares[i].thread, NULL, store_to_all, &shares[i]))
			return -EAGAIN;
	}
	since = now_ns();
	pthread_barrier_wait(&begin);
	for (unsigned i = 0; i < n; i++)
		pthread_join(shares[i].thread, NULL);
	*ns = now_ns() - since;
	pthread_barrier_destroy(&begin);
	return 0;
}

int granules(struct bench *b)
{
	uint64_t count;

	if (!b->opt.writers || !(b->opt.size / granule_of(b) / b->opt.writers))
		return -EINVAL;
	count = b->opt.size / granule_of(b) / b->opt.writers * b->opt.writers;
	printf("{\"way\":\"%s\",\"granules\":%lu,\"turns\":[", b->peer->name, count);
	return print_turns(b, pass);
}
