/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * checksum_avx2.c - XXH3-64 compiled for AVX2. checksum.c checks the processor before it calls
 * this. Empty for other processors than x86-64.
 */
#ifdef __x86_64__
#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#define XXH_VECTOR XXH_AVX2
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/base.h"

uint64_t ldfs_checksum_avx2(const void *bytes, uint64_t length)
{
	return XXH3_64bits(bytes, length);
}

#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
