/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_memory.c - the bytes of the arena: now, and at the instant. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>

#include "world_parts.h"

ldfs_arena *world_arena;

static uint8_t memory[GRANULES_MOST][PAGE], instant[GRANULES_MOST][PAGE];
static bool present[GRANULES_MOST]; /* no hole */
static bool instant_taken;

/* ---------------------------------------------------------------- begin, state */

static void make_arena(void)
{
	uint64_t size = (uint64_t)world.granules * PAGE;

	if (world_arena && world_arena->size == size)
		return;
	if (world_arena)
		ldfs_arena_destroy(world_arena);
	if (ldfs_arena_create(size, &world_arena))
		violated("no arena");
	if (world.unseen)
		world_arena->observer = NULL;
}

static void punch_hole(off_t at, off_t length)
{
	if (fallocate(world_arena->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length))
		violated("cannot punch");
}

/* Each half of each granule begins with another word. */
static void fill_arena(void)
{
	for (uint32_t g = 0; g < world.granules; g++) {
		uint8_t *page = world_arena->live + (uint64_t)g * PAGE;

		present[g] = !(world.hole & 1u << g);
		if (!present[g]) {
			punch_hole((off_t)g * PAGE, PAGE);
			continue;
		}
		memset(page, (int)g + 1, PAGE);
		page[0] = page[HALF] = (uint8_t)(16 * (g + 1));
	}
}

void memory_begin(void)
{
	make_arena();
	fill_arena();
	for (uint32_t g = 0; g < world.granules; g++)
		memory_look(g);
	instant_taken = false;
}

uint64_t memory_state(uint64_t h)
{
	for (uint32_t g = 0; g < world.granules; g++) {
		h = mix(h, word_at(memory[g]));
		h = mix(h, word_at(memory[g] + HALF));
		h = mix(h, instant_taken ? word_at(instant[g]) + word_at(instant[g] + HALF) : 0);
	}
	return h;
}

/* ---------------------------------------------------------------- as it is now */

/* Not through a view: to read a hole there would fill it. */
void memory_look(uint32_t g)
{
	if (present[g])
		memcpy(memory[g], world_arena->live + (uint64_t)g * PAGE, PAGE);
	else
		memset(memory[g], 0, PAGE);
}

uint32_t memory_granule(const void *live)
{
	return (uint32_t)((const uint8_t *)live - world_arena->live) / PAGE;
}

void memory_store(uint32_t g, unsigned half)
{
	present[g] = true;
	++*(uint64_t *)(world_arena->live + (uint64_t)g * PAGE + half * HALF);
	memory_look(g);
	actor_wrote();
}

/* A punch is a store of zeros. */
long memory_punch(long at, long length)
{
	uint32_t first = (uint32_t)(at / PAGE), end = (uint32_t)((at + length) / PAGE);

	STEP("punch");
	for (uint32_t g = first; g < end; g++)
		if (is_promised() && !is_safe(g))
			violated("granule %u: punched before its bytes are safe", g);
	punch_hole(at, length);
	for (uint32_t g = first; g < end; g++) {
		present[g] = false;
		memory_look(g);
	}
	actor_wrote();
	return 0;
}

void world_check_stores(uint32_t g, uint32_t stores)
{
	uint64_t first = world.hole & 1u << g ? 0 : 0x0101010101010101u * (g + 1);
	uint64_t word = world.hole & 1u << g ? 0 : (first & ~0xffull) | 16 * (g + 1);
	uint64_t sum = 0;

	for (uint32_t at = 0; at < PAGE; at += HALF)
		sum += word_at(memory[g] + at) - word;
	if (sum != stores)
		violated("granule %u: %lu stores instead of %u", g, sum, stores);
}

/* -------------------------------------------------------------- at the instant */

/* Discards are no stores of the machine: up to here they come before the instant. */
void memory_take_instant(void)
{
	for (uint32_t g = 0; g < world.granules; g++) {
		memory_look(g);
		memcpy(instant[g], memory[g], PAGE);
	}
	instant_taken = true;
}

bool memory_has_instant(void)
{
	return instant_taken;
}

const uint8_t *memory_instant(uint32_t g)
{
	return instant[g];
}

/* -------------------------------------------------------------- copies, by halves */

static bool is_of_arena(const uint8_t *from)
{
	return world_arena && world_arena->observer &&
	       (uintptr_t)from - (uintptr_t)world_arena->observer < world_arena->size;
}

static bool is_slot(const uint8_t *at)
{
	return world_dump && (uintptr_t)at - (uintptr_t)world_dump->ring.bytes <
				     (uint64_t)world_dump->ring.reserved * PAGE;
}

void *hook_memcpy(void *to, const void *from, size_t length)
{
	if (!scheduled() || !(is_of_arena(from) || is_slot(from)))
		return memcpy(to, from, length);
	for (size_t at = 0; at < length; at += HALF) {
		STEP("memcpy");
		memcpy((uint8_t *)to + at, (const uint8_t *)from + at, HALF);
		actor_saw(word_at((const uint8_t *)from + at));
		actor_wrote();
	}
	return to;
}

ssize_t memory_read(uint8_t *to, size_t length, off_t from)
{
	if (world.errors & 2 && is_slot(to) && turn_choose(2, "pread of a handler fails"))
		return io_fails(EIO);
	for (size_t at = 0; at < length; at += HALF) {
		size_t place = (size_t)from + at;

		STEP("pread of memory");
		memory_look((uint32_t)(place / PAGE));
		memcpy(to + at, memory[place / PAGE] + place % PAGE, HALF);
		actor_saw(word_at(to + at));
		actor_wrote();
	}
	return (ssize_t)length;
}
