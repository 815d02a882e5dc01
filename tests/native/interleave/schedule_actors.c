/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule_actors.c - the actors, and what each has read and written. */
#include <stdio.h>

#include "schedule_parts.h"

struct actor actors[ACTORS_MOST];
int actors_made, running = -1;
uint64_t writes;

void actors_begin(void)
{
	actors_made = 0;
	running = -1;
	writes = 0;
}

uint64_t actors_state(uint64_t h)
{
	for (int i = 0; i < actors_made; i++) {
		const struct actor *a = &actors[i];

		h = mix(h, a->history);
		h = mix(h, a->at);
		h = mix(h, a->waits | (uint64_t)a->timed << 4 | (uint64_t)a->timed_out << 5 |
				   (uint64_t)(writes - a->own != a->seen) << 6);
	}
	return h;
}

static void run_actor(int i)
{
	fiber_begins();
	actors[i].main(actors[i].arg);
	actors[i].waits = ENDED;
	writes++;
	give_turn();
}

int actor_make(const char *name, void *(*main)(void *), void *arg)
{
	int i = actors_made;

	if (i == ACTORS_MOST)
		violated("too many actors");
	actors[i] = (struct actor){ .main = main, .arg = arg, .waits = GOES };
	actor_name(i, name);
	fiber_make(i, run_actor);
	actors_made++;
	return i;
}

void actor_name(int actor, const char *name)
{
	snprintf(actors[actor].name, sizeof(actors[actor].name), "%s", name);
}

int actor_now(void)
{
	return running;
}

bool scheduled(void)
{
	return running >= 0;
}

void actor_saw(uint64_t value)
{
	if (running >= 0)
		actors[running].history = mix(actors[running].history, value);
}

void actor_forgets(uint64_t value)
{
	actors[running].history = value;
}

void actor_wrote(void)
{
	if (running < 0)
		return;
	writes++;
	actors[running].own++;
}
