/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Signal handlers that a program may have beside ours: loaded by the tests' programs. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>

#define PAGE 4096

/* --------------------------------------------- a handler of SIGSEGV that chains */

static struct sigaction before;
static uint8_t *own; /* a page that only it makes writable, as a garbage collector does */
static volatile int own_faults, others;

static void chaining(int signo, siginfo_t *info, void *context)
{
	if ((uint8_t *)info->si_addr >= own && (uint8_t *)info->si_addr < own + PAGE) {
		own_faults++;
		mprotect(own, PAGE, PROT_READ | PROT_WRITE);
		return;
	}
	others++;
	if (before.sa_flags & SA_SIGINFO)
		before.sa_sigaction(signo, info, context);
	else if (before.sa_handler == SIG_DFL)
		signal(signo, SIG_DFL);
	else
		before.sa_handler(signo);
}

void steal(void)
{
	struct sigaction act = { .sa_sigaction = chaining, .sa_flags = SA_SIGINFO };

	own = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaction(SIGSEGV, &act, &before);
}

/* A fault of its own; how many there were. */
int fault_of_its_own(void)
{
	mprotect(own, PAGE, PROT_READ);
	*(volatile uint8_t *)own = 1;
	return own_faults;
}

int faults_of_others(void)
{
	return others;
}

/* ------------------------------------------------------------------- a storm */

static volatile uint64_t *counters; /* in the arena: the handler itself meets armed pages */
static uint64_t pages;
static volatile uint64_t stormed;

static void count(int signo)
{
	(void)signo;
	counters[(stormed % pages) * (PAGE / 8)]++;
	stormed++;
}

/* SIGALRM by wall time and SIGPROF by CPU time, without SA_RESTART: system calls are interrupted. */
void storm(void *memory, uint64_t size, long microseconds)
{
	struct sigaction act = { .sa_handler = count };
	struct itimerval every = { .it_interval = { .tv_usec = microseconds },
				   .it_value = { .tv_usec = microseconds } };

	counters = memory;
	pages = size / PAGE;
	sigaction(SIGALRM, &act, NULL);
	sigaction(SIGPROF, &act, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	setitimer(ITIMER_PROF, &every, NULL);
}

uint64_t calm(void)
{
	struct itimerval never = { 0 };

	setitimer(ITIMER_REAL, &never, NULL);
	setitimer(ITIMER_PROF, &never, NULL);
	return stormed;
}
