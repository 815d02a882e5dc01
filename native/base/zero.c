/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * zero.c - whether memory is all zeros.
 *
 * The C library's memcmp has the widest vectors of this processor already: loops by hand with SSE2
 * and AVX2 were not faster (docs/performance.md).
 */
#include <string.h>

#include "base/base.h"

bool ldfs_all_zero(const void *bytes, uint64_t length)
{
	const uint64_t *words = bytes;

	return !words[0] && !memcmp(words, words + 1, length - sizeof(*words));
}
