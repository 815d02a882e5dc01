/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A handler that allocates, two calls down. */
#include <stdlib.h>

void *ldfs_fault_handler(void);

static __attribute__((noinline)) void *deeper(void)
{
	return malloc(1);
}

static __attribute__((noinline)) void *deep(void)
{
	return (char *)deeper() + 1;
}

void *ldfs_fault_handler(void)
{
	return (char *)deep() + 1;
}
