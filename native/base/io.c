/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * io.c - complete reads and writes at an offset: EINTR and short counts are handled here.
 *
 * ldfs_read_all is [signal], and calls the kernel directly. pread() of libc is a cancellation
 * point: a thread that was cancelled there, within the fault handler, would never release the
 * granule that it has claimed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/base.h"

int ldfs_read_all(int fd, void *buf, uint64_t length, uint64_t at)
{
	uint8_t *to = buf;

	while (length > 0) {
		ssize_t got = syscall(SYS_pread64, fd, to, length, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		to += got;
		at += (uint64_t)got;
		length -= (uint64_t)got;
	}
	return 0;
}

int ldfs_write_all(int fd, const void *buf, uint64_t length, uint64_t at)
{
	const uint8_t *from = buf;

	while (length > 0) {
		ssize_t put = pwrite(fd, from, length, (off_t)at);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return put < 0 ? -errno : -EIO;
		from += put;
		at += (uint64_t)put;
		length -= (uint64_t)put;
	}
	return 0;
}
