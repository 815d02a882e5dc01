/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * headroom.c - whether there is memory for more slots, before the kernel is asked for it.
 *
 * Memory that a group's limit or the machine does not have is not refused: the kernel gives it, and then kills
 * somebody, most likely the host with its guest. So INIT and the keeper look first: at what the machine has
 * available, and at the memory groups (cgroup v1 and v2) of this process, up to the topmost one it can see. A
 * limit that cannot be read is none. What others take meanwhile is not foreseen; RESERVE is for that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define RESERVE (16ull << 20) /* stays free: page tables, the page cache of the target, others */
#define UNKNOWN UINT64_MAX

struct hierarchy {
	const char *mount, *limit, *usage, *caches[2];
};

static const struct hierarchy v1 = {
	"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
	{ "\ntotal_inactive_file ", "\ntotal_active_file " },
};
static const struct hierarchy v2 = {
	"/sys/fs/cgroup", "memory.max", "memory.current", { "\ninactive_file ", "\nactive_file " },
};

/* The beginning of a small file, as text. */
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

static bool machine_has(uint64_t bytes)
{
	char text[4096];
	uint64_t kib = UNKNOWN;

	if (read_text("/proc/meminfo", text, sizeof(text)))
		kib = number_after(text, "MemAvailable:");
	return kib == UNKNOWN || kib >= bytes >> 10;
}

/* "max" and what is not there: UNKNOWN. */
static uint64_t number_in(const struct hierarchy *h, const char *group, const char *file)
{
	char path[4096], text[64];

	if (snprintf(path, sizeof(path), "%s%s/%s", h->mount, group, file) >= (int)sizeof(path) ||
	    !read_text(path, text, sizeof(text)))
		return UNKNOWN;
	return number_after(text, "");
}

/* Half of the page cache, as MemAvailable counts it: the kernel gives that up before it kills. */
static uint64_t cache_of(const struct hierarchy *h, const char *group)
{
	char path[4096], text[8192];
	uint64_t sum = 0;

	if (snprintf(path, sizeof(path), "%s%s/memory.stat", h->mount, group) >= (int)sizeof(path) ||
	    !read_text(path, text, sizeof(text)))
		return 0;
	for (int i = 0; i < 2; i++) {
		uint64_t bytes = number_after(text, h->caches[i]);

		sum += bytes == UNKNOWN ? 0 : bytes;
	}
	return sum / 2;
}

static bool group_has(const struct hierarchy *h, const char *group, uint64_t bytes)
{
	uint64_t limit = number_in(h, group, h->limit), usage = number_in(h, group, h->usage), room;

	if (limit == UNKNOWN || usage == UNKNOWN)
		return true;
	room = limit > usage ? limit - usage : 0;
	return room >= bytes || room + cache_of(h, group) >= bytes;
}

/* The group and all above it; in a container some of the path may mean nothing here. */
static bool groups_have(const struct hierarchy *h, char *group, uint64_t bytes)
{
	for (;;) {
		char *end = strrchr(group, '/');

		if (!group_has(h, end && end[1] ? group : "", bytes))
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

/* Each line: number, controllers and group, with colons between; without controllers it is v2's. */
static bool all_groups_have(uint64_t bytes)
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
		if (!groups_have(*controllers ? &v1 : &v2, group, bytes))
			return false;
	}
	return true;
}

/* [owner, keeper] Whether so many bytes more can be filled with data without anybody being killed for it. */
bool ldfs_headroom(uint64_t bytes)
{
	return machine_has(bytes + RESERVE) && all_groups_have(bytes + RESERVE);
}
