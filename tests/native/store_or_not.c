/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * store_or_not.c - accesses of all kinds that fault: which of them the context of the signal calls
 * a store. Prints what is wrong, then "right" when nothing was.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "fault/access.h"
#include "ldfs.h"

enum { NONE, LOAD, STORE };

static sigjmp_buf back;
static volatile int found;
static uint8_t *volatile at;
static volatile uint8_t seen;

static void handler(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)info;
	found = was_store(context) ? STORE : LOAD;
	siglongjmp(back, 1);
}

static void load(void)
{
	seen = *at;
}

static void store(void)
{
	*at = 1;
}

static void add(void)
{
	__atomic_fetch_add((uint64_t *)at, 1, __ATOMIC_SEQ_CST);
}

/* An exchange, where what is there is what was expected. */
static void compare(void)
{
	uint64_t there = 1;

	__atomic_compare_exchange_n((uint64_t *)at, &there, 78, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
}

/* Of many lines at once, which some processors have an instruction for. */
static void zero(void)
{
	memset(at, 0, ldfs_page_size());
}

static void vector(void)
{
	typedef uint8_t bytes __attribute__((vector_size(16)));

	*(volatile bytes *)at = (bytes){ 1 };
}

static void run(void)
{
	((void (*)(void))(uintptr_t)at)();
}

static int of(void (*access)(void))
{
	found = NONE;
	if (!sigsetjmp(back, 1))
		access();
	return found;
}

int main(void)
{
	static const struct {
		const char *name;
		void (*access)(void);
		int protection, kind;
	} all[] = {
		{ "load", load, PROT_READ, NONE },    { "load", load, PROT_NONE, LOAD },
		{ "store", store, PROT_READ, STORE }, { "store", store, PROT_NONE, STORE },
		{ "add", add, PROT_READ, STORE },     { "compare", compare, PROT_READ, STORE },
		{ "zero", zero, PROT_READ, STORE },   { "vector", vector, PROT_READ, STORE },
		{ "run", run, PROT_READ, LOAD },      { "run", run, PROT_NONE, LOAD },
	};
	struct sigaction act = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
	int wrong = 0;

	at = mmap(NULL, ldfs_page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		  0);
	sigaction(SIGSEGV, &act, NULL);
	*at = 1;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		int kind;

		mprotect(at, ldfs_page_size(), all[i].protection);
		kind = of(all[i].access);
		if (kind == all[i].kind)
			continue;
		printf("%s with rights %d: %d\n", all[i].name, all[i].protection, kind);
		wrong = 1;
	}
	if (!wrong)
		puts("right");
	return wrong;
}
