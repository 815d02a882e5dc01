/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule_turns.c - which actor runs next, and what an actor that waits waits for. */
#include "schedule_parts.h"

#define JUMPS_MOST 50 /* of time, in one run */

static uint64_t jumps;
static int deadlines;

void turns_begin(void)
{
	jumps = 0;
	deadlines = 0;
}

uint64_t turns_state(uint64_t h)
{
	return mix(h, (uint64_t)running * 64 + jumps + (uint64_t)deadlines * 4096);
}

static bool can_go(const struct actor *a)
{
	switch (a->waits) {
	case GOES:
		return true;
	case SPINS:
		return writes - a->own != a->seen;
	case JOINS:
		return actors[a->other].waits == ENDED;
	default:
		return false;
	}
}

/* No actor can go on: time passes for those that sleep, or that wait with a deadline. */
static bool pass_time(void)
{
	bool any = false;

	if (++jumps > JUMPS_MOST)
		return false;
	for (int i = 0; i < actors_made; i++) {
		struct actor *a = &actors[i];

		if ((a->waits == SPINS || a->waits == WAITS) && a->timed) {
			a->timed_out = true;
			a->waits = GOES;
			any = true;
		}
	}
	return any;
}

static bool deadline_may_pass(int i)
{
	return deadlines > 0 && actors[i].waits == WAITS && actors[i].timed;
}

static bool all_ended(void)
{
	for (int i = 0; i < actors_made; i++)
		if (actors[i].waits != ENDED)
			return false;
	return true;
}

/* The actors that can go on, the running one first. */
static int list_those_that_can_go(int *options)
{
	int n = 0;

	if (running >= 0 && can_go(&actors[running]))
		options[n++] = running;
	for (int i = 0; i < actors_made; i++)
		if (i != running && can_go(&actors[i]))
			options[n++] = i;
	return n;
}

/* -1: all have ended. */
static int next_actor(void)
{
	int options[ACTORS_MOST], n, free, wanted, taken;

	while (!(n = list_those_that_can_go(options))) {
		if (all_ended())
			return -1;
		if (!pass_time())
			violated("no actor can go on, and not all have ended");
	}
	free = running >= 0 && options[0] == running ? 1 : n;
	for (int i = 0; i < actors_made; i++)
		if (deadline_may_pass(i))
			options[n++] = i;
	taken = choose(n, free);
	wanted = replay_next();
	for (int i = 0; wanted >= 0 && i < n; i++)
		if (options[i] == wanted)
			taken = i;
	return options[taken];
}

void give_turn(void)
{
	int before = running, next = next_actor();

	if (next >= 0) {
		struct actor *a = &actors[next];

		trace_turn(next);
		if (a->waits == WAITS) { /* its deadline passes */
			deadlines--;
			a->timed_out = true;
		}
		a->waits = GOES;
		a->seen = writes - a->own;
	}
	running = next;
	if (next != before)
		fiber_switch(before, next);
}

void turn(const char *what, const char *function, int line)
{
	uint64_t seen;

	if (running < 0)
		return;
	if (trace_steps() == STEPS_MOST)
		violated("no end after %d steps", STEPS_MOST);
	trace_step(what, function, line);
	actors[running].at = (uintptr_t)what ^ (uint64_t)line << 48;
	/* Only a spin looks at what others wrote since the last one. */
	seen = actors[running].seen;
	give_turn();
	actors[running].seen = seen;
}

/* A loop that only looks leaves nothing behind: its rounds are one state. */
static void forget_round(struct actor *a)
{
	if (a->spin_at == a->at && a->spin_own == a->own)
		a->history = a->spin_history;
	a->spin_history = a->history;
	a->spin_own = a->own;
	a->spin_at = a->at;
}

void turn_spin(void)
{
	if (running < 0)
		return;
	forget_round(&actors[running]);
	actors[running].waits = SPINS;
	actors[running].timed = false;
	give_turn();
}

bool turn_sleep(void)
{
	struct actor *a = &actors[running];

	if (running < 0)
		return true;
	forget_round(a);
	a->waits = SPINS;
	a->timed = true;
	a->timed_out = false;
	give_turn();
	return a->timed_out;
}

bool turn_wait(const void *word, bool timed, uint32_t groups)
{
	struct actor *a = &actors[running];

	a->waits = WAITS;
	a->word = word;
	a->groups = groups;
	a->timed = timed;
	a->timed_out = false;
	give_turn();
	actor_saw(a->timed_out);
	return !a->timed_out;
}

static int list_those_that_wait(const void *word, uint32_t groups, int *found)
{
	int n = 0;

	for (int i = 0; i < actors_made; i++)
		if (actors[i].waits == WAITS && actors[i].word == word && actors[i].groups & groups)
			found[n++] = i;
	return n;
}

int turn_wake(const void *word, int most, uint32_t groups)
{
	int found[ACTORS_MOST], n, woken = 0;

	while (woken < most && (n = list_those_that_wait(word, groups, found))) {
		int one = n <= most - woken ? 0 : turn_choose(n, "which actor is woken");

		actors[found[one]].waits = GOES;
		woken++;
	}
	return woken;
}

void turn_until_ended(int actor)
{
	actors[running].waits = JOINS;
	actors[running].other = actor;
	give_turn();
}

int turn_choose(int options, const char *what)
{
	int taken = running < 0 ? 0 : replay_choice(options);

	if (taken < 0)
		taken = choose(options, 1);
	if (running >= 0) {
		trace_step(what, "chosen", taken);
		trace_choice(taken);
	}
	actor_saw((uint64_t)taken);
	return taken;
}

void turn_deadlines(int most)
{
	deadlines = most;
}
