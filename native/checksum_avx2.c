/* SPDX-License-Identifier: GPL-2.0-or-later */
/* checksum_avx2.c - XXH3-64 compiled for processors with AVX2; checksum.c asks before it calls this. */
#pragma GCC target("avx2")
#define XXH_VECTOR XXH_AVX2
#define XXH_INLINE_ALL
#include <immintrin.h>
#include <xxhash.h>

#include "internal.h"

uint64_t ldfs_checksum_avx2(const void *bytes, uint64_t length)
{
	return XXH3_64bits(bytes, length);
}
