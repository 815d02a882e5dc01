/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * failing_calls.c - LD_PRELOAD: system calls that fail as if there were no memory.
 *
 * After fail_populate(n) the n-th MADV_POPULATE_WRITE from now on and all after it fail; after
 * fail_threads(n) the same holds for new threads. n = 0: they work again. After fail_keep(n) the
 * n-th MADV_DONTFORK or MADV_DONTDUMP fails, and no other one; keeps_asked() returns how many there
 * were. fstat() fails from fail_stat(1) until fail_stat(0).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static _Atomic int populate_left, threads_left, keep_at, keeps, stat_fails;

void fail_populate(int n)
{
	populate_left = n;
}

void fail_threads(int n)
{
	threads_left = n;
}

void fail_keep(int n)
{
	keeps = 0;
	keep_at = n;
}

int keeps_asked(void)
{
	return keeps;
}

void fail_stat(int fails)
{
	stat_fails = fails;
}

static int due(_Atomic int *left)
{
	int n = *left;

	if (n > 1)
		atomic_fetch_sub(left, 1);
	return n == 1;
}

static int keep_due(int advice)
{
	return (advice == MADV_DONTFORK || advice == MADV_DONTDUMP) &&
	       atomic_fetch_add(&keeps, 1) + 1 == keep_at;
}

int fstat(int fd, struct stat *status)
{
	if (stat_fails) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fstat, fd, status);
}

int madvise(void *start, size_t length, int advice)
{
	if ((advice == MADV_POPULATE_WRITE && due(&populate_left)) || keep_due(advice)) {
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_madvise, start, length, advice);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
	int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
		    void *) = dlsym(RTLD_NEXT, "pthread_create");

	return due(&threads_left) ? EAGAIN : real(thread, attr, start, arg);
}
