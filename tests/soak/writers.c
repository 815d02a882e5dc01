/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * writers.c - threads that write memory as fast as they can, each in its own pattern, and can be
 * held.
 *
 * A writer looks at `held` between two rounds of stores and waits there. So when writers_hold
 * returns, no store is half done. writers.py reads the part between the "cffi" marks.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* cffi: begin */
enum pattern { HOT = 0, UNIFORM = 1, SEQUENTIAL = 2, CROSSING = 3, BLOCKS = 4, KERNEL = 5 };

struct writers;

/*
 * Start `count` threads that write [memory, memory + size), at least two pages, thread i in
 * patterns[i]. `source`: a descriptor of a file of at least 64 KiB that KERNEL reads into the
 * memory. NULL: no memory, or a thread could not be made.
 */
struct writers *writers_begin(uint8_t *memory, uint64_t size, const int *patterns, uint32_t count,
			      uint64_t seed, int source);
/*
 * Hold all: returns 0 once none of them writes. Calls nest. -ETIMEDOUT: after `timeout_ms` ms, and
 * the threads go on.
 */
int writers_hold(struct writers *w, uint32_t timeout_ms);
void writers_go(struct writers *w);
/* The number of rounds of all threads so far. */
uint64_t writers_rounds(struct writers *w);
/* End the threads and free everything. -ETIMEDOUT: a thread did not end; nothing is freed then. */
int writers_end(struct writers *w, uint32_t timeout_ms);
/* cffi: end */

#define PAGE 4096u
#define ROUND 64u         /* stores in a round */
#define BLOCK_MOST 20000u /* most bytes at once in BLOCKS and KERNEL */
#define HOT_PART 20u      /* 5 % of the pages ... */
#define HOT_STORES 90u    /* ... get 90 % of the stores */

struct writer {
	struct writers *all;
	pthread_t thread;
	int pattern;
	uint64_t random, position;
	_Atomic uint64_t rounds;
};

struct writers {
	uint8_t *memory;
	uint64_t size;
	int source;
	pthread_mutex_t lock; /* protects parked, and changes of held */
	pthread_cond_t change;
	_Atomic uint32_t held;
	_Atomic bool end;
	uint32_t parked, count;
	struct writer writer[];
};

/* xorshift64*: S. Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016. */
static uint64_t next_random(struct writer *w)
{
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return w->random * UINT64_C(0x2545F4914F6CDD1D);
}

static uint64_t below(struct writer *w, uint64_t limit)
{
	return (uint64_t)((unsigned __int128)next_random(w) * limit >> 64);
}

static void store(struct writer *w, uint64_t at)
{
	uint64_t value = w->random;

	memcpy(w->all->memory + at, &value, sizeof(value));
}

static uint64_t any_word(struct writer *w, uint64_t first_page, uint64_t pages)
{
	return (first_page + below(w, pages)) * PAGE + below(w, PAGE / 8) * 8;
}

static void write_hot(struct writer *w)
{
	uint64_t pages = w->all->size / PAGE, hot = pages / HOT_PART + 1;
	/* Each thread has hot pages of its own; the seed decides where they begin. */
	uint64_t first = w->position % (pages - hot + 1);

	for (unsigned i = 0; i < ROUND; i++)
		store(w,
		      below(w, 100) < HOT_STORES ? any_word(w, first, hot) : any_word(w, 0, pages));
}

static void write_uniform(struct writer *w)
{
	for (unsigned i = 0; i < ROUND; i++)
		store(w, any_word(w, 0, w->all->size / PAGE));
}

static void write_in_order(struct writer *w)
{
	for (unsigned i = 0; i < ROUND; i++) {
		next_random(w);
		store(w, w->position % (w->all->size / 8) * 8);
		w->position += 16; /* words: 32 stores a page */
	}
}

/* Stores of 8 bytes that cross from one page to the next. */
static void write_across(struct writer *w)
{
	for (unsigned i = 0; i < ROUND; i++)
		store(w, (1 + below(w, w->all->size / PAGE - 1)) * PAGE - 1 - below(w, 7));
}

static uint64_t any_stretch(struct writer *w, uint64_t *length)
{
	uint64_t most = w->all->size < BLOCK_MOST ? w->all->size : BLOCK_MOST;

	*length = 1 + below(w, most);
	return below(w, w->all->size - *length + 1);
}

/*
 * Long copies and fills: a page fault interrupts their vector and string instructions in the
 * middle.
 */
static void write_blocks(struct writer *w)
{
	uint64_t length, to = any_stretch(w, &length), from = below(w, w->all->size - length + 1);

	if (below(w, 2))
		memset(w->all->memory + to, (int)next_random(w), length);
	else
		memmove(w->all->memory + to, w->all->memory + from, length);
}

/*
 * Stores by the kernel. userfaultfd's thread catches them; with the other backends read(2) to armed
 * memory fails with EFAULT and changes nothing.
 */
static void write_by_kernel(struct writer *w)
{
	uint64_t length, to = any_stretch(w, &length);

	if (pread(w->all->source, w->all->memory + to, length, (off_t)below(w, 32768)) < 0)
		return;
}

static void (*const patterns_of[])(struct writer *w) = {
	[HOT] = write_hot,         [UNIFORM] = write_uniform, [SEQUENTIAL] = write_in_order,
	[CROSSING] = write_across, [BLOCKS] = write_blocks,   [KERNEL] = write_by_kernel,
};

static void park(struct writers *all)
{
	pthread_mutex_lock(&all->lock);
	all->parked++;
	pthread_cond_broadcast(&all->change);
	while (atomic_load(&all->held) && !atomic_load(&all->end))
		pthread_cond_wait(&all->change, &all->lock);
	all->parked--;
	pthread_mutex_unlock(&all->lock);
}

static void *run(void *writer)
{
	struct writer *w = writer;

	while (!atomic_load(&w->all->end)) {
		if (atomic_load(&w->all->held))
			park(w->all);
		else
			patterns_of[w->pattern](w);
		atomic_fetch_add_explicit(&w->rounds, 1, memory_order_relaxed);
	}
	return NULL;
}

static struct timespec deadline(clockid_t clock, uint32_t timeout_ms)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	ts.tv_sec += timeout_ms / 1000;
	ts.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	return ts;
}

struct writers *writers_begin(uint8_t *memory, uint64_t size, const int *patterns, uint32_t count,
			      uint64_t seed, int source)
{
	struct writers *all = calloc(1, sizeof(*all) + count * sizeof(all->writer[0]));

	if (!all)
		return NULL;
	all->memory = memory;
	all->size = size;
	all->source = source;
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->change, NULL);
	for (; all->count < count; all->count++) {
		struct writer *w = &all->writer[all->count];

		w->all = all;
		w->pattern = patterns[all->count];
		w->random = (seed + all->count * UINT64_C(0x9E3779B97F4A7C15)) | 1;
		w->position = next_random(w) >> 1;
		if (pthread_create(&w->thread, NULL, run, w)) {
			writers_end(all, 60000);
			return NULL;
		}
	}
	return all;
}

int writers_hold(struct writers *w, uint32_t timeout_ms)
{
	struct timespec until = deadline(CLOCK_REALTIME, timeout_ms);
	int rc = 0;

	pthread_mutex_lock(&w->lock);
	atomic_fetch_add(&w->held, 1);
	while (w->parked < w->count && rc == 0)
		rc = pthread_cond_timedwait(&w->change, &w->lock, &until);
	pthread_mutex_unlock(&w->lock);
	if (rc)
		writers_go(w);
	return -rc;
}

void writers_go(struct writers *w)
{
	pthread_mutex_lock(&w->lock);
	atomic_fetch_sub(&w->held, 1);
	pthread_cond_broadcast(&w->change);
	pthread_mutex_unlock(&w->lock);
}

uint64_t writers_rounds(struct writers *w)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < w->count; i++)
		sum += atomic_load(&w->writer[i].rounds);
	return sum;
}

int writers_end(struct writers *w, uint32_t timeout_ms)
{
	struct timespec until = deadline(CLOCK_REALTIME, timeout_ms);

	pthread_mutex_lock(&w->lock);
	atomic_store(&w->end, true);
	pthread_cond_broadcast(&w->change);
	pthread_mutex_unlock(&w->lock);
	for (; w->count; w->count--) {
		int rc = pthread_timedjoin_np(w->writer[w->count - 1].thread, NULL, &until);

		if (rc)
			return -rc;
	}
	pthread_cond_destroy(&w->change);
	pthread_mutex_destroy(&w->lock);
	free(w);
	return 0;
}
