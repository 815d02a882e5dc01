/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * peer.h - ways to take a copy of a running program's memory as it was at one instant, side by
 * side: the same writers, the same memory size, the same target. Each way is small, does what its
 * users do, and saves every page exactly once; where it can be helped without changing what it is,
 * it is (memory for the pages that it saves is there before they are, and never runs out).
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "histogram.h"

#define PAGE 4096ull
#define RUN_PAGES 256u /* of one write at the most */
#define WRITERS_MOST 8

enum pattern { HOT, UNIFORM, SEQUENTIAL };
enum era { BEFORE, DURING, AFTER, ERAS };

struct options {
	const char *way;
	uint64_t size; /* bytes of memory, whole pages */
	unsigned writers;
	enum pattern pattern;
	uint64_t rate; /* stores a second and writer; 0: as fast as it can */
	unsigned dumps;
	const char *target;               /* file; NULL: none, for what is measured without one */
	uint64_t granule, pool;           /* ours; 0: its default, 64 MiB */
	uint32_t policy, backend, arming; /* ours: numbers of ldfs.h */
	unsigned before_ms, after_ms;
	bool verify; /* compare with a copy made while the writers stood */
	bool broken; /* tests: one byte of the first page is wrong on the target */
};

/* What one dump took, in ns. */
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
	uint8_t *reference; /* NULL: not asked for */
	struct times times;
	uint64_t instant_ns;
	uint64_t save_max_ns; /* longest that a fault took, where the way knows */
	uint64_t slot_waits;  /* ours */
	void *own;            /* of the way */
};

/* Each returns 0 or a negative errno. */
struct peer {
	const char *name;
	int (*map)(struct bench *b);     /* the memory, once */
	int (*prepare)(struct bench *b); /* the writers run */
	int (*start)(struct bench *b);   /* stop them, arm, let them go: fills times */
	int (*sweep)(struct bench *b);   /* until every page of the instant is on the target */
	int (*finish)(struct bench *b);  /* nothing is left of it */
};

extern const struct peer ours, forked, stopped, mprotected, uffd_thread, uffd_sigbus;

uint64_t now_ns(void);
int map_shared(struct bench *b);
/* start() of the ways that have no stop of their own. */
int stop_and(struct bench *b, int (*arm)(struct bench *b));
void keep_reference(struct bench *b);
int write_pages(int fd, const uint8_t *from, uint64_t first, uint64_t count);

/* writers.c */
int writers_begin(struct bench *b);
void writers_end(void);
void writers_stop(void);
void writers_go(void);
void writers_era(enum era era);
uint64_t writers_stores(void); /* all that were made until now */
void writers_histogram(enum era era, struct histogram *out);
void pattern_begin(uint64_t *state, unsigned writer);
uint64_t pattern_next(uint64_t *state, enum pattern pattern, uint64_t pages); /* byte offset */

/* touch.c, floor.c: print JSON */
int touch(struct bench *b);
int print_floor(void);

#endif
