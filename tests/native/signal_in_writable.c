/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program's own signal handler stores to the very granule that its thread is just saving in
 * ldfs_arena_writable: it must come after that, not wait for it for ever.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>

#include "ldfs.h"

#define GRANULE (32ull << 20)
#define GRANULES 8
#define ROUNDS 100 /* until a signal came in time: on a busy machine not always in the first */

static volatile unsigned char *live;
static volatile sig_atomic_t at = -1, hits;

static void on_alarm(int signo)
{
	(void)signo;
	if (at >= 0 && at < GRANULES) { /* it is GRANULES for a moment */
		live[at * GRANULE]++;
		hits++;
	}
}

static int dump_once(ldfs_arena *arena, const ldfs_dump_config *config)
{
	struct itimerval often = { { 0, 1000 }, { 0, 1000 } }, never = { 0 };
	ldfs_dump *dump;

	if (ldfs_dump_init(arena, config, &dump) || ldfs_dump_start(dump, NULL, 0))
		return 2;
	setitimer(ITIMER_REAL, &often, NULL);
	for (at = 0; at < GRANULES; at++)
		if (ldfs_arena_writable(arena, at * GRANULE, 4096))
			return 3;
	at = -1;
	setitimer(ITIMER_REAL, &never, NULL);
	return ldfs_dump_release(dump) || ldfs_dump_free(dump);
}

int main(void)
{
	struct sigaction act = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	ldfs_dump_config config = { .granule_size = GRANULE,
				    .pool_size = GRANULE * GRANULES,
				    .stall_deadline_ns = 1000000000,
				    .target_fd = -1,
				    .table_fd = -1 };
	ldfs_arena *arena;

	if (ldfs_arena_create(GRANULE * GRANULES, &arena))
		return 1;
	live = ldfs_arena_live(arena);
	for (unsigned long i = 0; i < GRANULE * GRANULES; i += 4096)
		live[i] = 1;
	sigaction(SIGALRM, &act, NULL);
	for (int round = 0; round < ROUNDS && !hits; round++) {
		int rc = dump_once(arena, &config);

		if (rc)
			return rc;
	}
	printf("%s\n", hits ? "hit" : "never hit");
	return ldfs_arena_destroy(arena);
}
