/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vma.c - the advice (madvise) that a program gave for a mapping, so that another view in its place
 * gets the same.
 *
 * QEMU excludes its guest's memory from core files (MADV_DONTDUMP) and from children
 * (MADV_DONTFORK), and wants huge pages for it (MADV_HUGEPAGE); the swap puts one of our mappings
 * there. See VmFlags of /proc/pid/smaps in proc(5).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "memory/memory.h"

static const struct {
	const char *flag;
	int advice;
} kept[] = { { " dd", MADV_DONTDUMP },
	     { " dc", MADV_DONTFORK },
	     { " hg", MADV_HUGEPAGE },
	     { " nh", MADV_NOHUGEPAGE },
	     { " mg", MADV_MERGEABLE } };

/* Whether this line of smaps begins a mapping; *inside: whether that contains `address`. */
static bool is_head(const char *line, uintptr_t address, bool *inside)
{
	uintptr_t start, end;

	if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) != 2)
		return false;
	*inside = address >= start && address < end;
	return true;
}

/* Read the VmFlags line of the mapping that contains `address`; false: there is none. */
static bool find_flags(FILE *f, uintptr_t address, char *line, int size)
{
	bool inside = false;

	while (fgets(line, size, f))
		if (!is_head(line, address, &inside) && inside && !strncmp(line, "VmFlags:", 8))
			return true;
	return false;
}

bool ldfs_vma_all_huge(const uint8_t *view)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long long mapped = 0, huge = 0, kib;
	bool inside = false, seen = false;
	char line[512];

	if (!f)
		return false;
	while (!(seen && !inside) && fgets(line, sizeof(line), f)) {
		if (is_head(line, (uintptr_t)view, &inside) || !inside)
			continue;
		seen = true;
		if (sscanf(line, "Rss: %llu", &kib) == 1)
			mapped = kib;
		else if (sscanf(line, "ShmemPmdMapped: %llu", &kib) == 1 ||
			 sscanf(line, "FilePmdMapped: %llu", &kib) == 1)
			huge += kib;
	}
	fclose(f);
	return mapped && mapped == huge;
}

int ldfs_vma_read(const uint8_t *view, uint32_t *advice)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[512];

	*advice = 0;
	if (!f)
		return -errno;
	/* Not found: the kernel does not report VmFlags; then no advice is copied. */
	if (find_flags(f, (uintptr_t)view, line, sizeof(line)))
		for (unsigned i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
			*advice |= strstr(line, kept[i].flag) ? 1u << i : 0;
	fclose(f);
	return 0;
}

int ldfs_vma_advise(uint8_t *view, uint64_t size, uint32_t advice)
{
	for (unsigned i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (advice & 1u << i && madvise(view, size, kept[i].advice))
			return -errno;
	return 0;
}
