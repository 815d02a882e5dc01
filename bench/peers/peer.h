/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * peer.h - different ways to copy the memory of a running program as it was at one instant,
 * compared with the same writers, the same memory size and the same target.
 *
 * Each way is small, does what programs that use it do, and saves every page exactly once. It gets
 * the best conditions that do not change what it is: for example, the memory for the saved pages is
 * allocated before it is needed, and never runs out.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "histogram.h"

#define PAGE 4096ull
#define RUN_PAGES 256u /* most pages in one write */
#define WRITERS_MOST 16

enum pattern { HOT, UNIFORM, SEQUENTIAL };
enum era { BEFORE, DURING, AFTER, ERAS };

struct options {
	const char *way;
	uint64_t size; /* bytes of memory, whole pages */
	unsigned writers;
	enum pattern pattern;
	uint64_t rate; /* stores per second and writer; 0: as fast as it can */
	unsigned dumps;
	/* A file. NULL: no target, for measurements that need none. */
	const char *target;
	/* Of way "ours"; 0: default granule, pool of 64 MiB. Granule also of "uffd-sigbus". */
	uint64_t granule, pool;
	uint32_t policy, backend, arming, pages; /* of way "ours": numbers of ldfs.h */
	/* Of way "ours": the pool grows by itself, where the core can do that (POOL_AUTO). */
	uint32_t pool_auto;
	unsigned before_ms, after_ms;
	bool verify;   /* compare the target with a copy made while the writers were stopped */
	uint32_t copy; /* of the ways open-...: copy the granule, too */
	bool broken;   /* for tests: spoil one byte of the first page on the target */
};

/* How long each part of one dump took, in ns. */
struct times {
	uint64_t prepare, quiesce, arm, resume, dump, finish;
};

struct bench {
	struct options opt;
	const struct peer *peer;
	uint8_t *memory;
	int memfd; /* -1: private memory */
	int target;
	uint64_t pages;
	uint8_t *reference; /* copy of the memory at the instant; NULL: no verify */
	struct times times;
	uint64_t instant_ns;
	/* The longest time a fault took, in ns, for the ways that measure it. */
	uint64_t save_max_ns;
	uint64_t slot_waits; /* of way "ours" */
	/* Granules that the fault path made writable; of way "ours" and the ways open-... */
	uint64_t served;
	void *own; /* data of the way itself */
};

/* One way. Each function returns 0 or a negative errno. */
struct peer {
	const char *name;
	int (*map)(struct bench *b);     /* make the memory, once for all dumps */
	int (*prepare)(struct bench *b); /* before a dump, while the writers run */
	int (*start)(struct bench *b);   /* stop the writers, arm, let them go; fills in times */
	/* Return when all pages of the instant are on the target. */
	int (*sweep)(struct bench *b);
	int (*finish)(struct bench *b); /* end the dump: nothing is protected afterwards */
};

extern const struct peer ours, forked, stopped, mprotected, uffd_thread, uffd_sigbus;
extern const struct peer open_segv, open_sigbus;

uint64_t now_ns(void);
int map_shared(struct bench *b);
/*
 * The start() of the ways that have no stop of their own: stop the writers, call `arm`, let them
 * go.
 */
int stop_and(struct bench *b, int (*arm)(struct bench *b));
void keep_reference(struct bench *b);
int write_pages(int fd, const uint8_t *from, uint64_t first, uint64_t count);

/* writers.c */
int writers_begin(struct bench *b);
void writers_end(void);
void writers_stop(void);
void writers_go(void);
void writers_era(enum era era);
uint64_t writers_stores(void); /* all stores so far */
void writers_histogram(enum era era, struct histogram *out);
void pattern_begin(uint64_t *state, unsigned writer);
/* The byte offset of the next store of a pattern. */
uint64_t pattern_next(uint64_t *state, enum pattern pattern, uint64_t pages);

/* touch.c, first.c, granules.c, huge.c, many.c and floor.c: they print JSON. */
int touch(struct bench *b);
int first(struct bench *b);
int init(struct bench *b);
int granules(struct bench *b);
int huge(struct bench *b);
int many(int argc, char **argv);
int print_floor(void);

/*
 * turns.c: print the end of a JSON object, "turns", with the time of `stores` before and after
 * start(), for each dump. 0 or -errno.
 */
int print_turns(struct bench *b, int (*stores)(struct bench *b, uint64_t *ns));

#endif
