/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writers.c - the running program: threads that store one word at a time and can be stopped.
 *
 * Each store is timed by the cycle counter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "peer.h"

#define HOT_SHARE 20  /* one page in so many is hot */
#define HOT_STORES 10 /* one store in so many goes to any page */
#define STRIDE 64
#define SLICE_NS 1000000ull

struct writer {
	pthread_t thread;
	struct bench *b;
	unsigned number;
	_Atomic uint64_t stores;
	struct histogram times[ERAS];
} __attribute__((aligned(128)));

static struct writer writers[WRITERS_MOST];
static unsigned running;
static _Atomic unsigned quit, stop, parked;
static _Atomic unsigned current = BEFORE;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t go = PTHREAD_COND_INITIALIZER;

void pattern_begin(uint64_t *state, unsigned writer)
{
	*state = 0x9e3779b97f4a7c15ull * (writer + 1);
}

static uint64_t random_next(uint64_t *state)
{
	/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators" */
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

/* A number below `end`, made from the upper half of a random one. */
static uint64_t below(uint64_t random, uint64_t end)
{
	return (random >> 32) * end >> 32;
}

uint64_t pattern_next(uint64_t *state, enum pattern pattern, uint64_t pages)
{
	uint64_t random, hot = pages / HOT_SHARE;

	if (pattern == SEQUENTIAL) {
		*state += STRIDE;
		return *state % (pages * PAGE) & ~7ull;
	}
	random = random_next(state);
	if (pattern == HOT && random % HOT_STORES)
		return below(random, hot) * PAGE + (random & 0xff8);
	return below(random, pages) * PAGE + (random & 0xff8);
}

static void park(void)
{
	pthread_mutex_lock(&lock);
	atomic_fetch_add(&parked, 1);
	syscall(SYS_futex, &parked, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	while (atomic_load(&stop))
		pthread_cond_wait(&go, &lock);
	atomic_fetch_sub(&parked, 1);
	pthread_mutex_unlock(&lock);
}

static void sleep_until(uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void store_once(struct writer *w, uint64_t *state)
{
	uint64_t at = pattern_next(state, w->b->opt.pattern, w->b->pages), before, after;
	unsigned unused;

	before = __rdtscp(&unused);
	*(volatile uint64_t *)(w->b->memory + at) = before;
	after = __rdtscp(&unused);
	histogram_add(&w->times[atomic_load_explicit(&current, memory_order_relaxed)],
		      after - before);
	atomic_store_explicit(&w->stores,
			      atomic_load_explicit(&w->stores, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	uint64_t slice = w->b->opt.rate * SLICE_NS / 1000000000, next = now_ns(), state;

	if (w->b->opt.rate && !slice)
		slice = 1;
	pattern_begin(&state, w->number);
	if (w->b->opt.pattern == SEQUENTIAL)
		state = w->b->pages * PAGE / w->b->opt.writers * w->number;
	while (!atomic_load_explicit(&quit, memory_order_relaxed)) {
		for (uint64_t i = 0; i < (slice ? slice : 64); i++) {
			if (atomic_load_explicit(&stop, memory_order_relaxed))
				park();
			store_once(w, &state);
		}
		if (slice) {
			next += SLICE_NS;
			sleep_until(next);
		}
	}
	return NULL;
}

int writers_begin(struct bench *b)
{
	for (running = 0; running < b->opt.writers; running++) {
		struct writer *w = &writers[running];
		int rc;

		memset(w->times, 0, sizeof(w->times));
		w->b = b;
		w->number = running;
		rc = pthread_create(&w->thread, NULL, writer_main, w);
		if (rc)
			return -rc;
	}
	return 0;
}

void writers_end(void)
{
	atomic_store(&quit, 1);
	for (unsigned i = 0; i < running; i++)
		pthread_join(writers[i].thread, NULL);
	atomic_store(&quit, 0);
	running = 0;
}

/*
 * Sleep instead of polling: a writer that still has to park may need the processor that a loop
 * would keep busy.
 */
void writers_stop(void)
{
	unsigned seen;

	atomic_store(&stop, 1);
	while ((seen = atomic_load(&parked)) < running)
		syscall(SYS_futex, &parked, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

void writers_go(void)
{
	pthread_mutex_lock(&lock);
	atomic_store(&stop, 0);
	pthread_cond_broadcast(&go);
	pthread_mutex_unlock(&lock);
}

void writers_era(enum era era)
{
	atomic_store(&current, era);
}

uint64_t writers_stores(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < running; i++)
		sum += atomic_load_explicit(&writers[i].stores, memory_order_relaxed);
	return sum;
}

/* While the writers run, the counts may be a few stores behind. */
void writers_histogram(enum era era, struct histogram *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < running; i++)
		histogram_merge(out, &writers[i].times[era]);
}
