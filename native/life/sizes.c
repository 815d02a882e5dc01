/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sizes.c - how small granules may be. The kernel splits a mapping where a writable granule lies
 * next to a protected one, and a process may have at most vm.max_map_count mappings.
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "life/life.h"

/* The smallest default, in bytes. Cheaper per page than 4 KiB, see docs/performance.md. */
#define GRANULE_LEAST (64u << 10)
#define MAP_COUNT_MARGIN 1024u /* mappings that the process may still make during a dump */

static uint64_t count_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	uint64_t lines = 0;
	int c;

	if (!f)
		return 0;
	while ((c = getc_unlocked(f)) != EOF)
		lines += c == '\n';
	fclose(f);
	return lines;
}

static uint64_t max_map_count(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long long value = 65530;

	if (f) {
		if (fscanf(f, "%llu", &value) != 1)
			value = 65530;
		fclose(f);
	}
	return value;
}

/* See life.h. */
uint64_t ldfs_life_map_room(void)
{
	uint64_t used = count_maps() + MAP_COUNT_MARGIN, limit = max_map_count();

	return limit > used + 2 ? limit - used : 2;
}

uint64_t ldfs_granule_default(uint64_t arena_size)
{
	uint64_t room = ldfs_life_map_room(), size = GRANULE_LEAST;

	while (size < GRANULE_MOST && (arena_size + size - 1) / size > room)
		size *= 2;
	return size;
}
