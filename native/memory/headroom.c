/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * headroom.c - whether there is memory for more slots, before the kernel is asked for it.
 *
 * The kernel also grants memory that the machine does not have, or that exceeds a group's limit.
 * When the pages are used, its OOM killer kills a process, most likely the host with its guest. So
 * INIT and the keeper look first: at what the machine has available, and at the memory cgroups (v1
 * and v2) of this process, up to the topmost one that it can see. A limit that cannot be read
 * counts as no limit. Free swap counts as memory, because pages that exist already can be moved to
 * it, unless the caller wants that nothing is (ldfs_headroom_ram); for a group it counts as far as
 * the group's own swap limit allows, and not at all where that limit cannot be read. What other
 * processes allocate in the meantime is not foreseen; RESERVE is for that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory/memory.h"

/* Bytes that stay free: for page tables, the page cache of the target, other processes. */
#define RESERVE (16ull << 20)
#define UNKNOWN UINT64_MAX
/* What a pool that grows by itself may take where the kernel does not tell (no /proc). */
#define UNTOLD_MOST (256ull << 20)

struct hierarchy {
	/* Above `high` the kernel does not kill, but moves to swap and holds threads up. */
	const char *mount, *limit, *high, *usage, *swap_limit, *swap_usage, *caches[3];
	bool swap_has_memory; /* its swap figures include memory */
};

static const struct hierarchy v1 = {
	"/sys/fs/cgroup/memory",
	"memory.limit_in_bytes",
	NULL,
	"memory.usage_in_bytes",
	"memory.memsw.limit_in_bytes",
	"memory.memsw.usage_in_bytes",
	{ "\ntotal_inactive_file ", "\ntotal_active_file " },
	true,
};
static const struct hierarchy v2 = {
	"/sys/fs/cgroup",
	"memory.max",
	"memory.high",
	"memory.current",
	"memory.swap.max",
	"memory.swap.current",
	{ "\ninactive_file ", "\nactive_file ", "\nslab_reclaimable " },
	false,
};

/* Read the beginning of a small file as a string. */
static bool read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	return n > 0;
}

static uint64_t number_after(const char *text, const char *name)
{
	const char *at = strstr(text, name);
	unsigned long long value;

	return at && sscanf(at + strlen(name), "%llu", &value) == 1 ? value : UNKNOWN;
}

static uint64_t free_swap(const char *meminfo)
{
	uint64_t kib = number_after(meminfo, "SwapFree:");

	return kib == UNKNOWN ? 0 : kib << 10;
}

static bool machine_has(const char *meminfo, uint64_t swap, uint64_t bytes, uint64_t unknown)
{
	uint64_t kib = number_after(meminfo, "MemAvailable:");

	return kib == UNKNOWN ? bytes <= unknown : (kib << 10) + swap >= bytes;
}

static bool read_of(const struct hierarchy *h, const char *group, const char *file, char *text,
		    size_t size)
{
	char path[4096];

	return snprintf(path, sizeof(path), "%s%s/%s", h->mount, group, file) < (int)sizeof(path) &&
	       read_text(path, text, size);
}

/* UNKNOWN for "max" and for a file that does not exist. */
static uint64_t number_in(const struct hierarchy *h, const char *group, const char *file)
{
	char text[64];

	return read_of(h, group, file, text, sizeof(text)) ? number_after(text, "") : UNKNOWN;
}

/* Bytes that a group with `room` bytes of memory left may still move to swap. */
static uint64_t swap_of(const struct hierarchy *h, const char *group, uint64_t room)
{
	char text[64];
	uint64_t limit, usage = number_in(h, group, h->swap_usage), left;

	if (usage == UNKNOWN || !read_of(h, group, h->swap_limit, text, sizeof(text)))
		return 0;
	limit = number_after(text, ""); /* "max" becomes UNKNOWN, larger than any usage */
	left = limit > usage ? limit - usage : 0;
	if (h->swap_has_memory)
		left = left > room ? left - room : 0;
	return left;
}

/*
 * Half of the group's page cache and reclaimable slab, which the kernel frees before it kills.
 * Half, because MemAvailable counts them so too.
 */
static uint64_t cache_of(const struct hierarchy *h, const char *group)
{
	char text[8192];
	uint64_t sum = 0;

	if (!read_of(h, group, "memory.stat", text, sizeof(text)))
		return 0;
	for (int i = 0; i < 3 && h->caches[i]; i++) {
		uint64_t bytes = number_after(text, h->caches[i]);

		sum += bytes == UNKNOWN ? 0 : bytes;
	}
	return sum / 2;
}

static bool group_has(const struct hierarchy *h, const char *group, uint64_t swap, uint64_t bytes)
{
	uint64_t limit = number_in(h, group, h->limit), usage = number_in(h, group, h->usage);
	uint64_t high = h->high ? number_in(h, group, h->high) : UNKNOWN, room, left;

	limit = high < limit ? high : limit;
	if (limit == UNKNOWN || usage == UNKNOWN)
		return true;
	room = limit > usage ? limit - usage : 0;
	if (room >= bytes)
		return true;
	left = swap_of(h, group, room);
	return room + cache_of(h, group) + (left < swap ? left : swap) >= bytes;
}

/* The group and all its ancestors. In a container a part of the path may not exist here. */
static bool groups_have(const struct hierarchy *h, char *group, uint64_t swap, uint64_t bytes)
{
	for (;;) {
		char *end = strrchr(group, '/');

		if (!group_has(h, end && end[1] ? group : "", swap, bytes))
			return false;
		if (!end || !end[1])
			return true;
		*end = 0;
	}
}

static bool is_memory(const char *controllers)
{
	const char *at = strstr(controllers, "memory");

	return at && (at == controllers || at[-1] == ',') && (!at[6] || at[6] == ',');
}

/* Each line of /proc/self/cgroup is "number:controllers:group"; without controllers it is v2's. */
static bool all_groups_have(uint64_t swap, uint64_t bytes)
{
	char text[8192], *rest = text, *line;

	if (!read_text("/proc/self/cgroup", text, sizeof(text)))
		return true;
	while ((line = strsep(&rest, "\n"))) {
		char *controllers, *group = line;

		strsep(&group, ":");
		controllers = strsep(&group, ":");
		if (!controllers || !group || (*controllers && !is_memory(controllers)))
			continue;
		if (!groups_have(*controllers ? &v1 : &v2, group, swap, bytes))
			return false;
	}
	return true;
}

static bool has(uint64_t bytes, bool swap_counts)
{
	char meminfo[4096];
	uint64_t swap;
	bool found;

	errno = 0;
	if (!read_text("/proc/meminfo", meminfo, sizeof(meminfo))) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			return false; /* not known now: errno says why */
		meminfo[0] = 0;
	}
	swap = swap_counts ? free_swap(meminfo) : 0;
	bytes += RESERVE;
	found = machine_has(meminfo, swap, bytes, swap_counts ? UNKNOWN : UNTOLD_MOST) &&
		all_groups_have(swap, bytes);
	errno = ENOMEM;
	return found;
}

int ldfs_headroom(uint64_t bytes)
{
	return has(bytes, true);
}

int ldfs_headroom_ram(uint64_t bytes)
{
	return has(bytes, false);
}
