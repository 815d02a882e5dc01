/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * world.h - what the core stands on when it is interleaved: an arena whose protection is a byte for
 * each page, a target in memory, a clock that stands still; and what must hold at every step.
 *
 * A granule is one page. Copies and I/O go by halves of a page, with turns between, so that they
 * are as little atomic as in life. Protection is looked at by the actors that store; nothing really
 * faults.
 */
#ifndef INTERLEAVE_WORLD_H
#define INTERLEAVE_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "fault/within.h"
#include "life/life.h"

#define GRANULES_MOST 4

struct world_config {
	uint32_t granules, slots, spill; /* spill: slots at the most, 0: policy block */
	bool fail;                       /* policy */
	bool grows;                      /* pool auto, up to `spill` */
	bool short_of;                   /* memory for the pool may be short */
	bool holds;                      /* at its limit, without a target */
	bool no_target;
	bool table;         /* marks on the target, at every tick */
	uint32_t hole;      /* bit g: granule g is one at first */
	uint32_t mappings;  /* ENOMEM beyond so many, 0: no limit */
	uint32_t islands;   /* limit of the core's own, 0: none */
	bool hangs;         /* I/O on the target never comes back until io_comes_back() */
	uint32_t errors;    /* bit 0: I/O may fail; bit 1: so may the copy of a handler */
	bool guarded;       /* the target refuses a write whose bytes change under way */
	bool waits_end;     /* deadlines pass when no other actor can go on */
	uint32_t deadlines; /* and so many at any time */
	bool start_fails;   /* the first mprotect of START */
	bool unstopped;     /* the vCPUs are threads that no quiesce stops */
	bool stolen;        /* the signal, after the instant, and no entry of ours is left */
	bool sigbus;        /* backend: pages are protected by userfaultfd, no mapping is split */
	bool pieces;        /* of the sweep: one a granule, else the whole arena */
	uint32_t helpers;   /* of writer and sweep, called and sent away at any time */
	bool unseen;        /* no observer view: huge pages */
};

void world_begin(const struct world_config *c);
void world_dump_init(void);  /* makes world_dump */
void world_dump_start(void); /* in `begin`: no actor is there yet */
void world_end(void);
uint64_t world_state(void);

extern ldfs_arena *world_arena;
extern ldfs_dump *world_dump; /* NULL: freed */
extern bool world_stop;       /* the machine is to stand */
extern uint32_t world_in_store;

/* A store of a vCPU to granule g, faults and all. `half`: which half of it. */
void world_store(uint32_t g, unsigned half);
/* What a reader got for granule g is what it was at the instant. */
void world_check_read(uint32_t g, const uint8_t *got);
/* The granule was stored to so often since the beginning, and never else. */
void world_check_stores(uint32_t g, uint32_t stores);
bool world_may_lose(void);
void io_comes_back(void);

#endif
