/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * schedule.h - actors that take turns as a schedule says: coroutines of one thread, so that a run
 * depends on nothing but its choices.
 *
 * A run is a list of choices. The search goes through them depth first: all choices, or those with
 * at most `bound` preemptions (taking the turn from an actor that could go on). A state that was
 * met before with as many preemptions left is not gone into again.
 */
#ifndef INTERLEAVE_SCHEDULE_H
#define INTERLEAVE_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#define ACTORS_MOST 12
#define UNBOUNDED 1000

struct search {
	int bound;               /* preemptions, and other choices that cost; UNBOUNDED: all */
	uint64_t runs_most;      /* 0: until all are done */
	uint64_t seed;           /* not 0: random choices */
	const char *replay;      /* "actor*turns,=option,...": one run */
	uint64_t (*state)(void); /* hash of all that the actors share */
	const char *about;       /* said with a violation */
	void (*begin)(void);     /* makes actors */
	void (*end)(void);       /* all have ended */
};

struct found {
	uint64_t runs, states, steps;
	bool complete; /* all choices within the bound were tried */
};

struct found search_all(const struct search *s);

/* For `begin`: an actor; its number. It does nothing before its first turn. */
int actor_make(const char *name, void *(*main)(void *), void *arg);
void actor_name(int actor, const char *name);
int actor_now(void);
bool scheduled(void); /* actors are running, not begin or end */

/* Where another may be given the turn. */
void turn(const char *what, const char *function, int line);
/* The turn goes to others until one of them has written something. */
void turn_spin(void);
/* The same, or until time passes since no actor can go on; whether it did. */
bool turn_sleep(void);
/* Until an actor wakes those that wait at `word`; false: `timed`, and the time passed. */
bool turn_wait(const void *word, bool timed, uint32_t groups);
/* So many of those that wait there in one of `groups`, any ones. */
int turn_wake(const void *word, int most, uint32_t groups);
void turn_until_ended(int actor);
/* 0 to count - 1: one of several things that may happen. Any but 0 costs as a preemption. */
int turn_choose(int count, const char *what);
/* Let waits with a deadline end at any time, so often in a run. */
void turn_deadlines(int most);

/* What the actor has read, and that it has written. */
void actor_saw(uint64_t value);
void actor_wrote(void);
/* Nothing of what it has read matters any more. */
void actor_forgets(uint64_t value);
uint64_t mix(uint64_t hash, uint64_t value);

/* Print, with the run up to here, and end the program. */
void violated(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
