/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * schedule_fibers.c - a stack for each actor, and the change from one to another. setjmp, since
 * swapcontext would be two system calls a turn.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>

#include "schedule_parts.h"

#define STACK (256u << 10)

struct fiber {
	ucontext_t first; /* where it begins */
	jmp_buf context;  /* where it goes on */
	bool begun;
	uint8_t *stack;
};

static struct fiber fibers[ACTORS_MOST];
static jmp_buf home;

/* AddressSanitizer must know which stack is in use. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>

static int left; /* the actor that had the turn before */
static const void *home_stack;
static size_t home_size;

static void leave_for(int from, int to)
{
	left = from;
	__sanitizer_start_switch_fiber(NULL, to < 0 ? home_stack : fibers[to].stack,
				       to < 0 ? home_size : STACK);
}

void fiber_begins(void)
{
	const void *stack;
	size_t size;

	__sanitizer_finish_switch_fiber(NULL, &stack, &size);
	if (left < 0) {
		home_stack = stack;
		home_size = size;
	}
}

/* The actor that had it before may have ended in the middle of calls. */
static void fresh(void *stack)
{
	ASAN_UNPOISON_MEMORY_REGION(stack, STACK);
}
#else
static void leave_for(int from, int to)
{
	(void)from, (void)to;
}

void fiber_begins(void)
{
}

static void fresh(void *stack)
{
	(void)stack;
}
#endif

void fiber_make(int actor, void (*main)(int actor))
{
	struct fiber *f = &fibers[actor];

	f->begun = false;
	if (!f->stack) {
		f->stack = malloc(STACK);
		getcontext(&f->first);
	}
	fresh(f->stack);
	f->first.uc_stack.ss_sp = f->stack;
	f->first.uc_stack.ss_size = STACK;
	f->first.uc_link = NULL;
	makecontext(&f->first, (void (*)(void))main, 1, actor);
}

void fiber_switch(int from, int to)
{
	leave_for(from, to);
	if (_setjmp(from < 0 ? home : fibers[from].context)) {
		fiber_begins();
		return;
	}
	if (to < 0)
		_longjmp(home, 1);
	if (fibers[to].begun)
		_longjmp(fibers[to].context, 1);
	fibers[to].begun = true;
	setcontext(&fibers[to].first);
}
