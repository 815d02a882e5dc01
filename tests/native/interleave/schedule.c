/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule.c - see schedule.h. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "schedule.h"

#define STACK (256u << 10)
#define STEPS_MOST 20000 /* of one run: more means that it does not end */
#define NODES_MOST STEPS_MOST
#define TRACE_LAST 60
#define JUMPS_MOST 50 /* of time, in one run */

enum waits { GOES, SPINS, WAITS, JOINS, ENDED };

struct actor {
	ucontext_t first; /* where it begins */
	jmp_buf context;  /* where it goes on; swapcontext would be two system calls a turn */
	bool begun;
	uint8_t *stack;
	char name[16];
	void *(*main)(void *);
	void *arg;
	enum waits waits;
	bool timed; /* SPINS, WAITS: time ends it, too */
	bool timed_out;
	const void *word;   /* WAITS */
	int other;          /* JOINS */
	uint64_t own, seen; /* writes: its own; those of others at its last look */
	uint64_t history;   /* of what it has read */
	uint64_t at;        /* its last turn */
	uint64_t spin_history, spin_own, spin_at; /* the same at its last spin */
};

struct node {
	uint8_t count, taken, free; /* options; the one taken; the first `free` ones cost nothing */
	int used;                   /* preemptions before it */
};

struct trace {
	int actor;
	const char *what, *function;
	int line;
};

static struct actor actors[ACTORS_MOST];
static int count, now = -1;
static jmp_buf home;
static const struct search *search;
static struct found found;
static uint64_t writes, jumps, steps, random_state;
static int deadlines;

static struct node nodes[NODES_MOST];
static int depth, prefix; /* nodes of this run; of those, given by the search */
static int used;
static bool pruned;

static struct trace trace[STEPS_MOST + 1];
static uint16_t turns[STEPS_MOST + ACTORS_MOST * 4][2]; /* actor, steps in a row */
static int turns_count;
static uint16_t replay[STEPS_MOST][2];
static int replay_at;

/* ------------------------------------------------------------------- telling */

static void print_schedule(void)
{
	printf("schedule ");
	for (int i = 0; i < turns_count; i++)
		printf("%s%u*%u", i ? "," : "", turns[i][0], turns[i][1]);
	printf("\n");
}

void violated(const char *format, ...)
{
	uint64_t first = steps > TRACE_LAST ? steps - TRACE_LAST : 0;
	va_list args;

	printf("violated: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\nrun %lu, step %lu, turn of %s\n", found.runs + 1, steps,
	       now < 0 ? "nobody" : actors[now].name);
	for (uint64_t i = first; i < steps; i++)
		printf("  %-12s %s:%d %s\n", actors[trace[i].actor].name, trace[i].function,
		       trace[i].line, trace[i].what);
	for (int i = 0; i < count; i++)
		printf("  %d = %s%s\n", i, actors[i].name,
		       (const char *[]){ "", ", spins", ", waits", ", joins",
					 ", ended" }[actors[i].waits]);
	printf("picks %s\n", search->about);
	print_schedule();
	fflush(stdout);
	_Exit(1);
}

/* -------------------------------------------------------------------- states */

uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 29;
}

#define SEEN_BITS 22
static struct {
	uint64_t state;
	int left;
} seen[1u << SEEN_BITS];

static uint64_t state_now(void)
{
	uint64_t h = mix(search->state(), (uint64_t)now * 64 + jumps + (uint64_t)deadlines * 4096);

	for (int i = 0; i < count; i++) {
		const struct actor *a = &actors[i];

		h = mix(h, a->history);
		h = mix(h, a->at);
		h = mix(h, a->waits | (uint64_t)a->timed << 4 | (uint64_t)a->timed_out << 5 |
				   (uint64_t)(writes - a->own != a->seen) << 6);
	}
	return h ? h : 1;
}

/* Whether this state was met before with as much left to do. A full table forgets. */
static bool seen_before(int left)
{
	uint64_t h = state_now();

	for (unsigned i = 0; i < 16; i++) {
		uint64_t at = (h + i) & ((1u << SEEN_BITS) - 1);

		if (seen[at].state == h) {
			if (seen[at].left >= left)
				return true;
			seen[at].left = left;
			return false;
		}
		if (!seen[at].state || i == 15) {
			found.states += !seen[at].state;
			seen[at].state = h;
			seen[at].left = left;
			return false;
		}
	}
	return false;
}

/* ------------------------------------------------------------------- choices */

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int choose_random(int options, int free)
{
	/* Some runs change often, some hardly ever. */
	unsigned often = 1u << (1 + found.runs % 6);

	if (free > 1)
		return (int)(next_random() % (unsigned)options);
	return next_random() % often ? 0 : (int)(next_random() % (unsigned)options);
}

/* One of `options`, of which the first `free` cost nothing. */
static int choose(int options, int free)
{
	struct node *n = &nodes[depth];
	int taken;

	if (options < 2 || pruned || search->replay)
		return 0;
	if (search->seed)
		return choose_random(options, free);
	if (depth < prefix) {
		if (n->count != options || n->free != free)
			violated("a run does not repeat itself: the test is wrong");
	} else {
		if (depth == NODES_MOST || seen_before(search->bound - used)) {
			pruned = true;
			return 0;
		}
		*n = (struct node){ .count = (uint8_t)options,
				    .free = (uint8_t)free,
				    .used = used };
	}
	taken = n->taken;
	used += taken >= free;
	depth++;
	return taken;
}

/* The next run: the deepest choice that has another option. False: none has. */
static bool next_run(void)
{
	for (prefix = depth; prefix > 0; prefix--) {
		struct node *n = &nodes[prefix - 1];

		if (n->taken + 1 < n->count &&
		    n->used + (n->taken + 1 >= n->free) <= search->bound) {
			n->taken++;
			return true;
		}
	}
	return false;
}

/* -------------------------------------------------------------------- turns */

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

/* Nobody can go on: time passes for who sleeps, or who waits with a deadline. */
static bool pass_time(void)
{
	bool any = false;

	if (++jumps > JUMPS_MOST)
		return false;
	for (int i = 0; i < count; i++) {
		struct actor *a = &actors[i];

		if ((a->waits == SPINS || a->waits == WAITS) && a->timed) {
			a->timed_out = true;
			a->waits = GOES;
			any = true;
		}
	}
	return any;
}

/* Who comes by the list of a replay. */
static int replayed(void)
{
	while (replay[replay_at][1] == 0 && replay[replay_at + 1][1])
		replay_at++;
	if (replay[replay_at][1] == 0)
		return now;
	replay[replay_at][1]--;
	return replay[replay_at][0];
}

static bool deadline_may_pass(int i)
{
	return deadlines > 0 && actors[i].waits == WAITS && actors[i].timed;
}

/* -1: all have ended. */
static int next_actor(void)
{
	int options[ACTORS_MOST], n = 0, free, wanted, taken;

	for (;;) {
		bool alive = false;

		if (now >= 0 && can_go(&actors[now]))
			options[n++] = now;
		for (int i = 0; i < count; i++) {
			alive |= actors[i].waits != ENDED;
			if (i != now && can_go(&actors[i]))
				options[n++] = i;
		}
		if (n)
			break;
		if (!alive)
			return -1;
		if (!pass_time())
			violated("no actor can go on, and not all have ended");
	}
	free = now >= 0 && options[0] == now ? 1 : n;
	for (int i = 0; i < count; i++)
		if (deadline_may_pass(i))
			options[n++] = i;
	taken = choose(n, free);
	if (search->replay) {
		wanted = replayed();
		for (int i = 0; i < n; i++)
			if (options[i] == wanted)
				taken = i;
	}
	return options[taken];
}

static void count_turn(int actor)
{
	if (turns_count && turns[turns_count - 1][0] == actor) {
		turns[turns_count - 1][1]++;
	} else {
		turns[turns_count][0] = (uint16_t)actor;
		turns[turns_count++][1] = 1;
	}
}

/* AddressSanitizer must know on whose stack it is. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>

static int left; /* whose stack it was */
static const void *home_stack;
static size_t home_size;

static void leave_for(int next)
{
	left = now;
	__sanitizer_start_switch_fiber(NULL, next < 0 ? home_stack : actors[next].stack,
				       next < 0 ? home_size : STACK);
}

static void arrived(void)
{
	const void *stack;
	size_t size;

	__sanitizer_finish_switch_fiber(NULL, &stack, &size);
	if (left < 0) {
		home_stack = stack;
		home_size = size;
	}
}

/* Whoever had it before may have ended in the middle of calls. */
static void fresh(void *stack)
{
	ASAN_UNPOISON_MEMORY_REGION(stack, STACK);
}
#else
static void fresh(void *stack)
{
	(void)stack;
}

static void leave_for(int next)
{
	(void)next;
}

static void arrived(void)
{
}
#endif

static void give_turn(void)
{
	int before = now, next = next_actor();

	if (next >= 0) {
		struct actor *a = &actors[next];

		count_turn(next);
		if (a->waits == WAITS) { /* its deadline passes */
			deadlines--;
			a->timed_out = true;
		}
		a->waits = GOES;
		a->seen = writes - a->own;
	}
	if (next == before)
		return;
	leave_for(next);
	now = next;
	if (_setjmp(before < 0 ? home : actors[before].context)) {
		arrived();
		return;
	}
	if (next < 0)
		_longjmp(home, 1);
	if (actors[next].begun)
		_longjmp(actors[next].context, 1);
	actors[next].begun = true;
	setcontext(&actors[next].first);
}

bool scheduled(void)
{
	return now >= 0;
}

int actor_now(void)
{
	return now;
}

void turn(const char *what, const char *function, int line)
{
	uint64_t seen_before_turn;

	if (now < 0)
		return;
	if (steps == STEPS_MOST)
		violated("no end after %d steps", STEPS_MOST);
	trace[steps++] = (struct trace){ now, what, function, line };
	actors[now].at = (uintptr_t)what ^ (uint64_t)line << 48;
	/* Only a spin looks at what others wrote since the last one. */
	seen_before_turn = actors[now].seen;
	give_turn();
	actors[now].seen = seen_before_turn;
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
	if (now < 0)
		return;
	forget_round(&actors[now]);
	actors[now].waits = SPINS;
	actors[now].timed = false;
	give_turn();
}

bool turn_sleep(void)
{
	struct actor *a = &actors[now];

	if (now < 0)
		return true;
	forget_round(a);
	a->waits = SPINS;
	a->timed = true;
	a->timed_out = false;
	give_turn();
	return a->timed_out;
}

bool turn_wait(const void *word, bool timed)
{
	struct actor *a = &actors[now];

	a->waits = WAITS;
	a->word = word;
	a->timed = timed;
	a->timed_out = false;
	give_turn();
	actor_saw(a->timed_out);
	return !a->timed_out;
}

int turn_wake(const void *word, int most)
{
	int woken = 0;

	for (int i = 0; i < count && woken < most; i++)
		if (actors[i].waits == WAITS && actors[i].word == word) {
			actors[i].waits = GOES;
			woken++;
		}
	return woken;
}

void turn_until_ended(int actor)
{
	actors[now].waits = JOINS;
	actors[now].other = actor;
	give_turn();
}

int turn_choose(int options, const char *what)
{
	int taken = now < 0 ? 0 : choose(options, 1);

	if (now >= 0 && steps < STEPS_MOST)
		trace[steps++] = (struct trace){ now, what, "chosen", taken };
	actor_saw((uint64_t)taken);
	return taken;
}

void turn_deadlines(int most)
{
	deadlines = most;
}

/* -------------------------------------------------------------------- actors */

static void run_actor(int i)
{
	arrived();
	actors[i].main(actors[i].arg);
	actors[i].waits = ENDED;
	writes++;
	give_turn();
}

int actor_make(const char *name, void *(*main)(void *), void *arg)
{
	struct actor *a = &actors[count];

	if (count == ACTORS_MOST)
		violated("too many actors");
	a->main = main;
	a->arg = arg;
	a->waits = GOES;
	a->timed_out = a->timed = false;
	a->own = a->seen = a->history = a->at = a->spin_at = 0;
	actor_name(count, name);
	a->begun = false;
	if (!a->stack) {
		a->stack = malloc(STACK);
		getcontext(&a->first);
	}
	fresh(a->stack);
	a->first.uc_stack.ss_sp = a->stack;
	a->first.uc_stack.ss_size = STACK;
	a->first.uc_link = NULL;
	makecontext(&a->first, (void (*)(void))run_actor, 1, count);
	return count++;
}

void actor_name(int actor, const char *name)
{
	snprintf(actors[actor].name, sizeof(actors[actor].name), "%s", name);
}

void actor_saw(uint64_t value)
{
	if (now >= 0)
		actors[now].history = mix(actors[now].history, value);
}

void actor_forgets(uint64_t value)
{
	actors[now].history = value;
}

void actor_wrote(void)
{
	if (now < 0)
		return;
	writes++;
	actors[now].own++;
}

/* -------------------------------------------------------------------- search */

static void read_replay(void)
{
	const char *at = search->replay;
	unsigned actor, turns_of;
	int n = 0, used_chars;

	while (at && n < STEPS_MOST - 1 &&
	       sscanf(at, "%u*%u%n", &actor, &turns_of, &used_chars) == 2) {
		replay[n][0] = (uint16_t)actor;
		replay[n++][1] = (uint16_t)turns_of;
		at += used_chars;
		at += *at == ',';
	}
	replay[n][1] = 0;
}

static void run_once(void)
{
	count = depth = used = turns_count = deadlines = replay_at = 0;
	writes = jumps = steps = 0;
	now = -1;
	pruned = false;
	search->begin();
	give_turn(); /* comes back when all have ended */
	search->end();
	found.runs++;
	found.steps += steps;
}

struct found search_all(const struct search *s)
{
	search = s;
	found = (struct found){ 0 };
	random_state = s->seed;
	read_replay();
	for (;;) {
		run_once();
		if (s->replay)
			break;
		if (!s->seed && !next_run()) {
			found.complete = true;
			break;
		}
		if (s->runs_most && found.runs >= s->runs_most)
			break;
	}
	return found;
}
