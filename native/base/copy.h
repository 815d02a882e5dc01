/* SPDX-License-Identifier: GPL-2.0-or-later */
/* copy.h - a copy that bypasses the cache (non-temporal stores). [signal] */
#ifndef LDFS_COPY_H
#define LDFS_COPY_H

#include <emmintrin.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED
#elif defined(__has_feature) /* clang */
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif

/*
 * Copy `length` bytes, a multiple of 64; both addresses are aligned to 16.
 *
 * The bytes that a page fault saves come from memory and are read again only much later. A copy
 * with non-temporal stores takes two thirds of the time of memcpy (docs/performance.md), and leaves
 * the cache to the thread whose store faulted. The fence at the end orders the copy before later
 * stores: a thread that sees what the caller publishes afterwards sees all copied bytes.
 */
static inline void copy_past_cache(void *to, const void *from, uint64_t length)
{
#ifdef SANITIZED
	memcpy(to, from, length); /* the sanitizers instrument memcpy, not these intrinsics */
#else
	const __m128i *in = from;
	__m128i *out = to;

	for (uint64_t i = 0; i < length / sizeof(*in); i += 4) {
		__m128i a = _mm_load_si128(in + i), b = _mm_load_si128(in + i + 1);
		__m128i c = _mm_load_si128(in + i + 2), d = _mm_load_si128(in + i + 3);

		_mm_stream_si128(out + i, a);
		_mm_stream_si128(out + i + 1, b);
		_mm_stream_si128(out + i + 2, c);
		_mm_stream_si128(out + i + 3, d);
	}
	_mm_sfence(); /* a weaker fence does not order non-temporal stores */
#endif
}

#endif
