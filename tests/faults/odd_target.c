/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * odd_target.c - LD_PRELOAD: a target that accepts O_DIRECT at open but fails each write
 * (ODD_DIRECT=errno), or that fails to zero a range (ODD_ZERO=errno). At its end the process prints
 * how many calls failed so.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic unsigned refused;

static int refuse(const char *name)
{
	const char *value = getenv(name);

	if (!value)
		return 0;
	atomic_fetch_add(&refused, 1);
	errno = atoi(value);
	return 1;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
	if (fcntl(fd, F_GETFL) & O_DIRECT && refuse("ODD_DIRECT"))
		return -1;
	return syscall(SYS_pwrite64, fd, bytes, length, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at)
{
	return pwrite(fd, bytes, length, at);
}

int fallocate(int fd, int mode, off_t at, off_t length)
{
	if (mode & FALLOC_FL_ZERO_RANGE && refuse("ODD_ZERO"))
		return -1;
	return (int)syscall(SYS_fallocate, fd, mode, at, length);
}

int fallocate64(int fd, int mode, off_t at, off_t length)
{
	return fallocate(fd, mode, at, length);
}

__attribute__((destructor)) static void tell(void)
{
	fprintf(stderr, "refused %u\n", atomic_load(&refused));
}
