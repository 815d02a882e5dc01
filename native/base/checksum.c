/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * checksum.c - XXH3-64, with the widest vectors that this processor has.
 *
 * The sweep hashes all data that it writes, so hashing limits its rate. AVX2 takes about half the
 * time of SSE2, which every x86-64 processor has; xxhash.h itself takes what every processor of a
 * kind has: SSE2, and NEON on arm64. The result is the same.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/base.h"

uint64_t ldfs_checksum(const void *bytes, uint64_t length)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx2"))
		return ldfs_checksum_avx2(bytes, length);
#endif
	return XXH3_64bits(bytes, length);
}
