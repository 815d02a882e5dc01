/* SPDX-License-Identifier: GPL-2.0-or-later */
/* turns.c - the same stores before and after start(), once for each dump: touch.c, granules.c. */
#include "peer.h"

static int turn(struct bench *b, int (*stores)(struct bench *b, uint64_t *ns), const char *comma)
{
	uint64_t plain = 0, armed = 0;
	int rc = stores(b, &plain);

	if (!rc)
		rc = b->peer->prepare(b);
	if (!rc)
		rc = b->peer->start(b);
	if (!rc)
		rc = stores(b, &armed);
	if (rc)
		return rc;
	printf("%s{\"plain_ns\":%lu,\"armed_ns\":%lu}", comma, plain, armed);
	return b->peer->finish(b);
}

int print_turns(struct bench *b, int (*stores)(struct bench *b, uint64_t *ns))
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < b->opt.dumps; i++)
		rc = turn(b, stores, i ? "," : "");
	if (!rc)
		puts("]}");
	return rc;
}
