/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_parts.h - what the files of the world (world.h) offer each other. */
#ifndef INTERLEAVE_WORLD_PARTS_H
#define INTERLEAVE_WORLD_PARTS_H

#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "schedule.h"
#include "world.h"

#define PAGE LDFS_PAGE_SIZE
#define HALF (PAGE / 2)
#define SECOND 1000000000u

/* A step of the running actor, in a function of the world. */
#define STEP(what) hook_step(NULL, what, __func__, __LINE__)

/* Of hooks.h, which the world itself is not built with. */
void hook_step(const volatile void *at, const char *what, const char *function, int line);

extern struct world_config world; /* of this run */

static inline uint64_t word_at(const void *bytes)
{
	uint64_t word;

	__builtin_memcpy(&word, bytes, sizeof(word));
	return word;
}

/* Each part: _begin() before a run, _state() what of it decides how the run goes on. */

/* --------------------------------------- world_memory.c: the bytes of the arena */

void memory_begin(void);      /* makes world_arena, too */
void memory_look(uint32_t g); /* the bytes as a reader of the memfd sees them */
void memory_store(uint32_t g, unsigned half);
void memory_take_instant(void);
bool memory_has_instant(void);
const uint8_t *memory_instant(uint32_t g); /* what the dump is to show */
uint32_t memory_granule(const void *live);
ssize_t memory_read(uint8_t *to, size_t length, off_t from);
long memory_punch(long at, long length);
uint64_t memory_state(uint64_t hash);

/* ------------------------- world_protection.c: what is read-only, and the faults */

void protection_begin(void);
void protection_end(void);
bool is_readonly(uint32_t g);
long protection_populate(const uint8_t *page);
uint64_t protection_state(uint64_t hash);

/* ----------------------------------------- world_target.c: the target and its I/O */

void target_begin(void);
int target_file(void);
int target_table_file(void);
bool target_has(uint32_t g, const uint8_t *bytes);
bool target_is_synced(void);
ssize_t target_read(uint8_t *to, size_t length, off_t from);
int io_fails(int error); /* sets errno; -1 */
bool io_has_failed(void);
uint64_t target_state(uint64_t hash);

/* ------------------------------ world_kernel.c: system calls, the our handler */

void handlers_begin(void);
int world_signal(void); /* that a store gets */

/* ------------------------------------------------ world_rules.c: what must hold */

void rules_begin(void);
bool is_promised(void);   /* the dump must show the instant */
bool is_safe(uint32_t g); /* its bytes of the instant are kept, or need not be */
void check_state_step(uint32_t g, uint8_t from, uint8_t to);
void check_phase_step(uint32_t from, uint32_t to);
void check_marks(const ldfs_table_block *block);
uint64_t rules_state(uint64_t hash);

/* --------------------------------------------------------- world_clock.c: time */

void clock_begin(void);
void clock_passes(void); /* a second */
uint64_t clock_state(uint64_t hash);

/* ------------------------------------------------------ world_threads.c: locks */

void locks_begin(void);
uint64_t locks_state(uint64_t hash);

/* ---------------------------------------- world_heap.c: the core's own memory */

void heap_end(void);
void check_not_freed(const volatile void *at);
uint64_t heap_state(uint64_t hash);

/* ------------------------------------------------- world_dump.c: the dump's state */

uint64_t dump_state(uint64_t hash);

#endif
