/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule_replay.c - a run by the list of turns that a report has printed. */
#include <stdio.h>

#include "schedule_parts.h"

static uint16_t replay[STEPS_MOST][2]; /* actor, steps in a row; 0 steps: the end */
static int at;
static bool given;

void replay_begin(const char *schedule)
{
	unsigned actor, steps;
	int n = 0, characters;

	at = 0;
	given = schedule;
	while (schedule && n < STEPS_MOST - 1 &&
	       sscanf(schedule, "%u*%u%n", &actor, &steps, &characters) == 2) {
		replay[n][0] = (uint16_t)actor;
		replay[n++][1] = (uint16_t)steps;
		schedule += characters;
		schedule += *schedule == ',';
	}
	replay[n][1] = 0;
}

int replay_next(void)
{
	if (!given)
		return -1;
	while (replay[at][1] == 0 && replay[at + 1][1])
		at++;
	if (replay[at][1] == 0)
		return running;
	replay[at][1]--;
	return replay[at][0];
}
