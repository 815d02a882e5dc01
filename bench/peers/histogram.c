/* SPDX-License-Identifier: GPL-2.0-or-later */
/* histogram.c - see histogram.h. */
#include "histogram.h"

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	for (unsigned i = 0; i < BINS; i++)
		into->count[i] += from->count[i];
	if (from->longest > into->longest)
		into->longest = from->longest;
}

/* The upper end of a bin in cycles, exclusive. */
static uint64_t upper_end(unsigned bin)
{
	unsigned power = bin / 8;

	return bin < 24 ? bin + 1 : (uint64_t)(8 + bin % 8 + 1) << (power - 3);
}

static uint64_t total(const struct histogram *h)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < BINS; i++)
		sum += h->count[i];
	return sum;
}

/* The upper end of the bin below which that share of all counts lies. */
static uint64_t quantile(const struct histogram *h, double share)
{
	uint64_t wanted = (uint64_t)((double)total(h) * share), sum = 0;

	for (unsigned i = 0; i < BINS; i++) {
		sum += h->count[i];
		if (sum > wanted)
			return upper_end(i) < h->longest ? upper_end(i) : h->longest;
	}
	return h->longest;
}

void histogram_print(FILE *out, const struct histogram *h, double ns_per_cycle)
{
	const char *comma = "";

	fprintf(out,
		"{\"count\":%lu,\"p50\":%.0f,\"p99\":%.0f,\"p999\":%.0f,\"p9999\":%.0f,\"max\":%."
		"0f,\"bins\":[",
		total(h), (double)quantile(h, .5) * ns_per_cycle,
		(double)quantile(h, .99) * ns_per_cycle, (double)quantile(h, .999) * ns_per_cycle,
		(double)quantile(h, .9999) * ns_per_cycle, (double)h->longest * ns_per_cycle);
	for (unsigned i = 0; i < BINS; i++)
		if (h->count[i]) {
			fprintf(out, "%s[%.0f,%lu]", comma, (double)upper_end(i) * ns_per_cycle,
				h->count[i]);
			comma = ",";
		}
	fputs("]}", out);
}
