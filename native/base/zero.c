/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * zero.c - whether memory is all zeros.
 *
 * The bytes are all 0 if the first word is 0 and each byte equals the one a word before it.
 * memcmp() of the C library already uses the widest vectors of the processor: hand-written SSE2 and
 * AVX2 loops were not faster (docs/performance.md).
 */
#include <string.h>

#include "base/base.h"

bool ldfs_all_zero(const void *bytes, uint64_t length)
{
	const uint64_t *words = bytes;

	return !words[0] && !memcmp(words, words + 1, length - sizeof(*words));
}
