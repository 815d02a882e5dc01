/* SPDX-License-Identifier: GPL-2.0-or-later */
/* copy.h - a copy that does not go through the cache. [signal] */
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
 * What is saved in a fault comes from memory and is read again much later: a copy past the cache
 * takes two thirds of the time (docs/performance.md), and leaves the cache to who stores. `length`
 * bytes, a multiple of 64; both aligned to 16. Whoever sees what the caller publishes afterwards
 * sees all of them.
 */
static inline void copy_past_cache(void *to, const void *from, uint64_t length)
{
#ifdef SANITIZED
	memcpy(to, from, length); /* which they look at */
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
	_mm_sfence(); /* streaming stores are not ordered by anything weaker */
#endif
}

#endif
