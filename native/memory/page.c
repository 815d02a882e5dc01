/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * page.c - how large the kernel's pages are. x86-64 has pages of 4 KiB, arm64 of 4, 16 or 64 KiB,
 * as the kernel was built. Formats number pages of LDFS_PAGE_SIZE on every kernel.
 */
#include <unistd.h>

#include "memory/memory.h"

#define ENTRY 8 /* bytes of an entry of the page tables */

/* The C library has it from the kernel since the program's start: no system call. */
uint64_t ldfs_page_size(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t ldfs_page_huge(void)
{
	return ldfs_page_size() / ENTRY * ldfs_page_size();
}
