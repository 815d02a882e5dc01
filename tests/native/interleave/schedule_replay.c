/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule_replay.c - a run by the list of turns that a report has printed. */
#include <stdio.h>

#include "schedule_parts.h"

static struct turns replay[STEPS_MOST]; /* 0 steps of an actor: the end */
static int at;
static bool given;

static int read_one(const char *schedule, struct turns *one)
{
	unsigned actor = CHOSEN, count;
	int characters = 0;

	if (sscanf(schedule, "=%u%n", &count, &characters) != 1 &&
	    sscanf(schedule, "%u*%u%n", &actor, &count, &characters) != 2)
		return 0;
	*one = (struct turns){ (uint16_t)actor, (uint16_t)count };
	return characters;
}

void replay_begin(const char *schedule)
{
	int n = 0, characters;

	at = 0;
	given = schedule;
	while (schedule && n < STEPS_MOST - 1 && (characters = read_one(schedule, &replay[n]))) {
		n++;
		schedule += characters;
		schedule += *schedule == ',';
	}
	replay[n] = (struct turns){ 0 };
}

static bool over(int i)
{
	return replay[i].actor != CHOSEN && !replay[i].count;
}

int replay_choice(int options)
{
	if (!given)
		return -1;
	while (over(at) && !over(at + 1))
		at++;
	if (replay[at].actor != CHOSEN || replay[at].count >= options)
		return 0;
	return replay[at++].count;
}

int replay_next(void)
{
	if (!given)
		return -1;
	while (replay[at].actor == CHOSEN || (over(at) && !over(at + 1)))
		at++;
	if (over(at))
		return running;
	replay[at].count--;
	return replay[at].actor;
}
