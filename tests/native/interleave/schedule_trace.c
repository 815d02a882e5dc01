/* SPDX-License-Identifier: GPL-2.0-or-later */
/* schedule_trace.c - the steps of a run, and the report of one that breaks a rule. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "schedule_parts.h"

#define SHOWN_MOST 60

struct step {
	int actor;
	const char *what, *function;
	int line;
};

static const char *about;
static uint64_t runs;
static struct step trace[STEPS_MOST + 1];
static uint64_t steps;
static struct turns turns[STEPS_MOST + ACTORS_MOST * 4];
static int turns_count;

void trace_begin_run(const struct search *s, uint64_t runs_before)
{
	about = s->about;
	runs = runs_before;
	steps = 0;
	turns_count = 0;
}

uint64_t trace_steps(void)
{
	return steps;
}

void trace_step(const char *what, const char *function, int line)
{
	if (steps < STEPS_MOST)
		trace[steps++] = (struct step){ running, what, function, line };
}

void trace_turn(int actor)
{
	if (turns_count && turns[turns_count - 1].actor == actor)
		turns[turns_count - 1].count++;
	else
		turns[turns_count++] = (struct turns){ (uint16_t)actor, 1 };
}

void trace_choice(int taken)
{
	turns[turns_count++] = (struct turns){ CHOSEN, (uint16_t)taken };
}

static void print_steps(void)
{
	uint64_t first = steps > SHOWN_MOST ? steps - SHOWN_MOST : 0;

	for (uint64_t i = first; i < steps; i++)
		printf("  %-12s %s:%d %s\n", actors[trace[i].actor].name, trace[i].function,
		       trace[i].line, trace[i].what);
}

static void print_actors(void)
{
	static const char *const says[] = { "", ", spins", ", waits", ", joins", ", ended" };

	for (int i = 0; i < actors_made; i++)
		printf("  %d = %s%s\n", i, actors[i].name, says[actors[i].waits]);
}

static void print_schedule(void)
{
	printf("schedule ");
	for (int i = 0; i < turns_count; i++) {
		printf("%s", i ? "," : "");
		if (turns[i].actor == CHOSEN)
			printf("=%u", turns[i].count);
		else
			printf("%u*%u", turns[i].actor, turns[i].count);
	}
	printf("\n");
}

void violated(const char *format, ...)
{
	va_list args;

	printf("violated: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\nrun %lu, step %lu, turn of %s\n", runs + 1, steps,
	       running < 0 ? "no actor" : actors[running].name);
	print_steps();
	print_actors();
	printf("picks %s\n", about);
	print_schedule();
	fflush(stdout);
	_Exit(1);
}
