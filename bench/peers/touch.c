/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * touch.c - what the first store to a page costs after the instant, when nothing else happens. One
 * thread does the same stores before and after start(); the result is the difference, divided by
 * the number of pages that they touch.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"

#define TOUCHED_SHARE 5 /* at least one page of so many is touched */

struct walk {
	uint64_t stores, pages;
};

/* Find the number of stores of the pattern that touches that many pages. */
static struct walk plan(const struct bench *b)
{
	uint8_t *seen = calloc(b->pages, 1);
	struct walk w = { 0, 0 };
	uint64_t state;

	if (!seen)
		return w;
	pattern_begin(&state, 0);
	while (w.pages < b->pages / TOUCHED_SHARE) {
		uint64_t page = pattern_next(&state, b->opt.pattern, b->pages) / PAGE;

		w.pages += !seen[page];
		seen[page] = 1;
		w.stores++;
	}
	free(seen);
	return w;
}

static uint64_t walk(struct bench *b, uint64_t stores)
{
	uint64_t state, before = now_ns();

	pattern_begin(&state, 0);
	for (uint64_t i = 0; i < stores; i++)
		*(volatile uint64_t *)(b->memory +
				       pattern_next(&state, b->opt.pattern, b->pages)) = i;
	return now_ns() - before;
}

int touch(struct bench *b)
{
	struct walk w = plan(b);
	const char *comma = "";

	walk(b, w.stores);
	printf("{\"way\":\"%s\",\"pages\":%lu,\"stores\":%lu,\"turns\":[", b->peer->name, w.pages,
	       w.stores);
	for (unsigned i = 0; i < b->opt.dumps; i++) {
		uint64_t plain = walk(b, w.stores), armed;
		int rc = b->peer->prepare(b);

		if (!rc)
			rc = b->peer->start(b);
		if (rc)
			return rc;
		armed = walk(b, w.stores);
		printf("%s{\"plain_ns\":%lu,\"armed_ns\":%lu}", comma, plain, armed);
		comma = ",";
		rc = b->peer->finish(b);
		if (rc)
			return rc;
	}
	puts("]}");
	return 0;
}
