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

static struct walk planned; /* by touch(), for each walk */

static int walk(struct bench *b, uint64_t *ns)
{
	uint64_t state, before = now_ns();

	pattern_begin(&state, 0);
	for (uint64_t i = 0; i < planned.stores; i++)
		*(volatile uint64_t *)(b->memory +
				       pattern_next(&state, b->opt.pattern, b->pages)) = i;
	*ns = now_ns() - before;
	return 0;
}

int touch(struct bench *b)
{
	uint64_t ns;

	planned = plan(b);
	walk(b, &ns);
	printf("{\"way\":\"%s\",\"pages\":%lu,\"stores\":%lu,\"turns\":[", b->peer->name,
	       planned.pages, planned.stores);
	return print_turns(b, walk);
}
