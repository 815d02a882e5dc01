/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * histogram.h - counts of durations in cycles: 8 bins for each power of two, and the longest
 * duration exactly.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define BINS (64 * 8)

struct histogram {
	uint64_t count[BINS];
	uint64_t longest; /* cycles */
};

static inline unsigned histogram_bin(uint64_t cycles)
{
	unsigned power;

	if (cycles < 8)
		return (unsigned)cycles;
	power = 63u - (unsigned)__builtin_clzll(cycles);
	return power * 8 + (unsigned)(cycles >> (power - 3) & 7);
}

/* Called only by the thread that owns the histogram. */
static inline void histogram_add(struct histogram *h, uint64_t cycles)
{
	h->count[histogram_bin(cycles)]++;
	if (cycles > h->longest)
		h->longest = cycles;
}

void histogram_merge(struct histogram *into, const struct histogram *from);
/*
 * Print {"count":..,"p50":..,"p99":..,"p999":..,"p9999":..,"max":..,"bins":[[end,count],..]}. Times
 * are in ns; "end" is the upper end of a bin, and bins without a count are left out.
 */
void histogram_print(FILE *out, const struct histogram *h, double ns_per_cycle);

#endif
