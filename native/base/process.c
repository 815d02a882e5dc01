/* SPDX-License-Identifier: GPL-2.0-or-later */
/* process.c - reading a string from another process's memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/base.h"

/* Reads at most one page at a time: the string may end just before an unmapped page. */
int ldfs_read_string(int tid, uint64_t address, char *buf, size_t size)
{
	size_t have = 0;

	while (have < size) {
		size_t piece = LDFS_PAGE_SIZE - (address + have) % LDFS_PAGE_SIZE;
		struct iovec here = { .iov_base = buf + have };
		struct iovec there = { .iov_base = (void *)(uintptr_t)(address + have) };
		ssize_t got;

		if (piece > size - have)
			piece = size - have;
		here.iov_len = there.iov_len = piece;
		got = process_vm_readv(tid, &here, 1, &there, 1, 0);
		if (got <= 0)
			return got < 0 ? -errno : -EFAULT;
		if (memchr(buf + have, 0, (size_t)got))
			return 0;
		have += (size_t)got;
	}
	return -ENAMETOOLONG;
}
