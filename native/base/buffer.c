/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * buffer.c - buffers that the machine's bytes pass through.
 *
 * The owner of the machine's memory may exclude it from core files and children (MADV_DONTDUMP,
 * MADV_DONTFORK). Copies of that memory must be excluded too. Memory from malloc would not be, and
 * the bytes would stay in the heap after free.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "base/base.h"

void *ldfs_buffer_make(uint64_t size)
{
	void *buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buffer == MAP_FAILED)
		return NULL;
	if (madvise(buffer, size, MADV_DONTDUMP) || madvise(buffer, size, MADV_DONTFORK)) {
		munmap(buffer, size);
		return NULL;
	}
	return buffer;
}

void ldfs_buffer_free(void *buffer, uint64_t size)
{
	if (buffer)
		munmap(buffer, size);
}
