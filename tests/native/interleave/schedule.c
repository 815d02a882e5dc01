/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule.c - see schedule.h: the search, run by run. */
#include "schedule_parts.h"

static const struct search *search;
static struct found found;

uint64_t schedule_state(void)
{
	uint64_t h = actors_state(turns_state(search->state()));

	return h ? h : 1;
}

static void run_once(void)
{
	actors_begin();
	turns_begin();
	choices_begin_run(found.runs);
	replay_begin(search->replay);
	trace_begin_run(search, found.runs);
	search->begin();
	give_turn(); /* comes back when all have ended */
	search->end();
	found.runs++;
	found.steps += trace_steps();
}

struct found search_all(const struct search *s)
{
	uint64_t states = seen_states();

	search = s;
	found = (struct found){ 0 };
	choices_begin(s);
	for (;;) {
		run_once();
		if (s->replay)
			break;
		if (!s->seed && !choices_next_run()) {
			found.complete = true;
			break;
		}
		if (s->runs_most && found.runs >= s->runs_most)
			break;
	}
	found.states = seen_states() - states;
	return found;
}
