/* SPDX-License-Identifier: GPL-2.0-or-later */
/* copy.h - a copy that bypasses the cache (non-temporal stores). [signal] */
#ifndef LDFS_COPY_H
#define LDFS_COPY_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED
#elif defined(__has_feature) /* clang */
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif

#define COPY_LINE 64 /* bytes of a turn of the loops below */

#if defined(SANITIZED)

/* The sanitizers instrument memcpy, not what is below. */
static inline void copy_lines(void *to, const void *from, uint64_t length)
{
	memcpy(to, from, length);
}

#elif defined(__x86_64__)

#include <emmintrin.h>

static inline void copy_lines(void *to, const void *from, uint64_t length)
{
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
}

#elif defined(__aarch64__)

/*
 * `stnp` says that the bytes are not wanted again soon; what a processor makes of that is its own.
 * The barrier orders the loads, too: on arm64 a later store could otherwise be seen before them,
 * and the caller's next step lets other threads overwrite what was copied.
 */
static inline void copy_lines(void *to, const void *from, uint64_t length)
{
	const uint8_t *in = from, *end = in + length;
	uint8_t *out = to;

	for (; in < end; in += COPY_LINE, out += COPY_LINE)
		__asm__ volatile("ldp q0, q1, [%0]\n\t"
				 "ldp q2, q3, [%0, #32]\n\t"
				 "stnp q0, q1, [%1]\n\t"
				 "stnp q2, q3, [%1, #32]"
				 :
				 : "r"(in), "r"(out)
				 : "memory", "v0", "v1", "v2", "v3");
	__asm__ volatile("dmb ish" ::: "memory");
}

#else

static inline void copy_lines(void *to, const void *from, uint64_t length)
{
	memcpy(to, from, length);
	atomic_thread_fence(memory_order_seq_cst);
}

#endif

/*
 * Copy `length` bytes, a multiple of 64; both addresses are aligned to 16.
 *
 * The bytes that a page fault saves come from memory and are read again only much later. On x86-64
 * a copy with non-temporal stores takes two thirds of the time of memcpy (docs/performance.md), and
 * leaves the cache to the thread whose store faulted. The fence at the end orders the copy before
 * later stores: a thread that sees what the caller publishes afterwards sees all copied bytes.
 */
static inline void copy_past_cache(void *to, const void *from, uint64_t length)
{
	copy_lines(to, from, length);
}

#endif
