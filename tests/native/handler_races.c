/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Another handler takes SIGSEGV in a bad way, or at a bad moment: between two system calls of ours.
 * sigaction(2) of this program, which the core calls too, does that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "fault/within.h"

#define PAGE ldfs_page_size()
#define CALLS_MOST 10 /* a handler that is called so often by one fault is in a ring */

typedef int (*sigaction_fn)(int, const struct sigaction *, struct sigaction *);

static void (*after_look)(void), (*before_set)(void); /* once */

static int kernel(const struct sigaction *act, struct sigaction *before)
{
	return ((sigaction_fn)dlsym(RTLD_NEXT, "sigaction"))(SIGSEGV, act, before);
}

static void once(void (**what)(void))
{
	void (*now)(void) = *what;

	*what = NULL;
	if (now)
		now();
}

int sigaction(int signo, const struct sigaction *act, struct sigaction *before)
{
	int rc;

	if (act)
		once(&before_set);
	rc = ((sigaction_fn)dlsym(RTLD_NEXT, "sigaction"))(signo, act, before);
	if (!act)
		once(&after_look);
	return rc;
}

/* ------------------------------------------------------- handlers beside ours */

static uint8_t *page; /* its right to be written belongs to the handler that was there first */
static volatile int first_calls, calls;
static struct sigaction found[3];

static void first(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)info, (void)context;
	first_calls++;
	mprotect(page, PAGE, PROT_READ | PROT_WRITE);
}

static void chain(int n, int signo, siginfo_t *info, void *context)
{
	calls = calls + 1;
	if (calls < CALLS_MOST)
		found[n].sa_sigaction(signo, info, context);
	else
		first(signo, info, context);
}

static void chain_0(int signo, siginfo_t *info, void *context)
{
	chain(0, signo, info, context);
}

static void chain_1(int signo, siginfo_t *info, void *context)
{
	chain(1, signo, info, context);
}

static void chain_2(int signo, siginfo_t *info, void *context)
{
	chain(2, signo, info, context);
}

static void (*const handlers[])(int, siginfo_t *, void *) = { chain_0, chain_1, chain_2 };

static void take_with(int n, int flags)
{
	struct sigaction act = { .sa_sigaction = handlers[n], .sa_flags = SA_SIGINFO | flags };

	kernel(&act, &found[n]);
}

static void take(int n)
{
	take_with(n, 0);
}

static int on_top(int n)
{
	struct sigaction now;

	kernel(NULL, &now);
	return now.sa_sigaction == handlers[n];
}

/* A fault that is not ours. True: the first handler got it, and those over it `expected` calls. */
static int passes(int expected)
{
	int before = first_calls;

	calls = 0;
	mprotect(page, PAGE, PROT_READ);
	*(volatile uint8_t *)page = 1;
	if (first_calls == before + 1 && calls == expected)
		return 1;
	printf("%d calls of the first handler, %d of others\n", first_calls - before, calls);
	return 0;
}

/* --------------------------------------------------------------------- cases */

static void comes_again(void)
{
	take(0);
	ldfs_fault_retake(SIGSEGV);
}

/* What one guard has seen is out of date when another one has put ours back meanwhile. */
static int late_look(void)
{
	take(0);
	if (ldfs_fault_retake(SIGSEGV) != 1)
		return 0;
	kernel(&found[0], NULL); /* withdraws, and comes again while a guard looks */
	ldfs_fault_verify(SIGSEGV);
	after_look = comes_again;
	ldfs_fault_verify(SIGSEGV);
	take(0); /* over the entry that is over it */
	return ldfs_fault_retake(SIGSEGV) == 1 && passes(1);
}

static void take_1(void)
{
	take(1);
}

static void take_0(void)
{
	take(0);
}

static void take_2_then_0(void)
{
	take(2);
	before_set = take_0;
}

static void take_1_then_both(void)
{
	take(1);
	before_set = take_2_then_0;
}

/* No entry is left for what comes while ours is put back: the last one of them stays. */
static int last_stays(void)
{
	before_set = take_1_then_both;
	take(0);
	return ldfs_fault_retake(SIGSEGV) < 0 && on_top(0);
}

/* One that comes while ours is put back, and an entry is left for it, too. */
static int both_below(void)
{
	before_set = take_1;
	take(0);
	return ldfs_fault_retake(SIGSEGV) == 1 && passes(2);
}

/* signal(2) puts back what it found without its flags. */
static int without_flags(void)
{
	signal(SIGSEGV, signal(SIGSEGV, SIG_IGN));
	return ldfs_fault_verify(SIGSEGV) == 0 && passes(0);
}

/* It was called once only, withdrew, and comes again for good. */
static int other_flags(void)
{
	take_with(0, (int)SA_RESETHAND);
	if (ldfs_fault_retake(SIGSEGV) != 1)
		return 0;
	kernel(&found[0], NULL);
	ldfs_fault_verify(SIGSEGV);
	take(0);
	return ldfs_fault_retake(SIGSEGV) == 1 && passes(1) && passes(1);
}

static const struct {
	const char *name;
	int (*holds)(void);
} cases[] = {
	{ "late_look", late_look },     { "last_stays", last_stays },
	{ "both_below", both_below },   { "without_flags", without_flags },
	{ "other_flags", other_flags },
};

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_sigaction = first, .sa_flags = SA_SIGINFO };
	ldfs_arena *arena;

	page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	kernel(&act, NULL);
	if (argc != 2 || ldfs_arena_create(PAGE, &arena))
		return 2;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (!strcmp(argv[1], cases[i].name))
			printf("%s\n", cases[i].holds() ? "right" : "wrong");
	return 0;
}
