/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule_parts.h - what the files of the scheduler (schedule.h) offer each other. */
#ifndef INTERLEAVE_SCHEDULE_PARTS_H
#define INTERLEAVE_SCHEDULE_PARTS_H

#include "schedule.h"

#define STEPS_MOST 20000 /* of one run: more means that it does not end */

/* ------------------------------------------- schedule_actors.c: the coroutines */

enum waits { GOES, SPINS, WAITS, JOINS, ENDED };

struct actor {
	char name[16];
	void *(*main)(void *);
	void *arg;
	enum waits waits;
	bool timed; /* SPINS, WAITS: time ends it, too */
	bool timed_out;
	const void *word;   /* WAITS */
	uint32_t groups;    /* WAITS: bits */
	int other;          /* JOINS */
	uint64_t own, seen; /* writes: its own; those of others at its last look */
	uint64_t history;   /* of what it has read */
	uint64_t at;        /* its last turn */
	uint64_t spin_history, spin_own, spin_at; /* the same at its last spin */
};

extern struct actor actors[ACTORS_MOST];
extern int actors_made;
extern int running;     /* index of the actor that has the turn; -1: none has */
extern uint64_t writes; /* of all actors */

void actors_begin(void);
uint64_t actors_state(uint64_t hash);

/* ------------------------- schedule_fibers.c: their stacks, and whose is in use */

/* Index `actor` runs `main` from its beginning at its first turn. */
void fiber_make(int actor, void (*main)(int actor));
/* From one to another; -1 is the search, outside of all actors. */
void fiber_switch(int from, int to);
/* The first thing that an actor does. */
void fiber_begins(void);

/* --------------------------------------- schedule_turns.c: which one runs next */

void turns_begin(void);
uint64_t turns_state(uint64_t hash);
void give_turn(void);

/* ----------------------------------- schedule_choices.c: the search's tree of them */

void choices_begin(const struct search *s); /* of a search */
void choices_begin_run(uint64_t runs);      /* so many were before it */
/* One of `options`, of which the first `free` ones cost nothing. */
int choose(int options, int free);
/* The next run: the deepest choice that has another option. False: none has. */
bool choices_next_run(void);

/* --------------------------------------- schedule_seen.c: states that were met */

/* Whether this state was met before with as much left to do. A full table forgets. */
bool seen_before(uint64_t state, int left);
uint64_t seen_states(void); /* different ones */

/* ----------------------------------------- schedule_trace.c: a run, to be shown */

void trace_begin_run(const struct search *s, uint64_t runs);
void trace_step(const char *what, const char *function, int line);
void trace_turn(int actor);
void trace_choice(int taken);
uint64_t trace_steps(void);

/* ---------------------------------------- schedule_replay.c: a run, shown again */

/* Turns of one actor in a row; or, with CHOSEN, the option that was taken where one had to be. */
struct turns {
	uint16_t actor, count;
};

#define CHOSEN UINT16_MAX

void replay_begin(const char *schedule); /* NULL: none */
/* The option that was taken here, the first one where the list has none; -1: there is no list. */
int replay_choice(int options);
int replay_next(void); /* the actor that comes next in the list; -1: there is none */

/* ---------------------------------------------- schedule.c: the search itself */

/* A hash of all that decides what may happen from here on; not 0. */
uint64_t schedule_state(void);

#endif
