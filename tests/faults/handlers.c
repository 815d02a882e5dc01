/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * handlers.c - signal handlers that a program may have next to ours; a library that the tests'
 * programs load.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#define PAGE 4096

/* ---------------------------- handlers of SIGSEGV, or of the signal in taken(), four of them */

static int taken_signal = SIGSEGV;

void taken(int signo)
{
	taken_signal = signo;
}

static struct thief {
	struct sigaction before;
	/*
	 * A page that only this handler makes writable, as garbage collectors do: read-only, or for
	 * SIGBUS in a file that is too short.
	 */
	uint8_t *own;
	int file;
	/* A fault that is not its own kills the process: it does not call the handler before it. */
	bool alone;
	volatile int own_faults, others, masks_lost;
} thieves[4];

/* Before a test looks at what the process has. */
__attribute__((constructor)) static void make_own(void)
{
	for (unsigned n = 0; n < sizeof(thieves) / sizeof(*thieves); n++) {
		thieves[n].file = memfd_create("own", 0);
		if (ftruncate(thieves[n].file, PAGE))
			abort();
		thieves[n].own = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, thieves[n].file, 0);
	}
}

static void close_own(struct thief *t)
{
	bool bus = taken_signal == SIGBUS;

	mprotect(t->own, PAGE, bus ? PROT_READ | PROT_WRITE : PROT_READ);
	if (bus && ftruncate(t->file, 0))
		abort();
}

static void open_own(struct thief *t)
{
	if (ftruncate(t->file, PAGE))
		abort();
	mprotect(t->own, PAGE, PROT_READ | PROT_WRITE);
}

static void call_before(struct thief *t, int signo, siginfo_t *info, void *context)
{
	sigset_t mine, after;

	sigprocmask(SIG_SETMASK, NULL, &mine);
	t->before.sa_sigaction(signo, info, context);
	sigprocmask(SIG_SETMASK, NULL, &after);
	for (int i = 1; i < SIGRTMIN; i++)
		if (sigismember(&mine, i) != sigismember(&after, i)) {
			t->masks_lost++;
			break;
		}
}

static void serve(struct thief *t, int signo, siginfo_t *info, void *context)
{
	if ((uint8_t *)info->si_addr >= t->own && (uint8_t *)info->si_addr < t->own + PAGE) {
		t->own_faults++;
		open_own(t);
		return;
	}
	t->others++;
	if (t->alone)
		signal(signo, SIG_DFL);
	else if (t->before.sa_flags & SA_SIGINFO)
		call_before(t, signo, info, context);
	else if (t->before.sa_handler == SIG_DFL)
		signal(signo, SIG_DFL);
	else
		t->before.sa_handler(signo);
}

#define HANDLER(n)                                                         \
	static void handler_##n(int signo, siginfo_t *info, void *context) \
	{                                                                  \
		serve(&thieves[n], signo, info, context);                  \
	}
HANDLER(0)
HANDLER(1)
HANDLER(2)
HANDLER(3)

static void (*const handlers[])(int, siginfo_t *, void *) = { handler_0, handler_1, handler_2,
							      handler_3 };

/* Install handler n for the signal, perhaps again. It blocks SIGUSR1 while it runs. */
static void steal_with(int n, int flags)
{
	struct sigaction act = { .sa_sigaction = handlers[n], .sa_flags = SA_SIGINFO | flags };

	sigaddset(&act.sa_mask, SIGUSR1);
	sigaction(taken_signal, &act, &thieves[n].before);
}

void steal(int n)
{
	steal_with(n, 0);
}

void steal_for_one_fault(int n)
{
	steal_with(n, (int)SA_RESETHAND);
}

/* With SA_NODEFER: the signal is not blocked while the handler runs. */
void steal_open(int n)
{
	steal_with(n, SA_NODEFER);
}

/*
 * Two ways of a handler that is called once only, does nothing, and expects the next fault to be
 * handled by the handler before it.
 */
static void nothing(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)info, (void)context;
	thieves[0].others++;
}

static void putting_back(int signo, siginfo_t *info, void *context)
{
	(void)info, (void)context;
	thieves[0].others++;
	sigaction(signo, &thieves[0].before, NULL);
}

void steal_once(int by_flag)
{
	struct sigaction act = { .sa_sigaction = by_flag ? nothing : putting_back,
				 .sa_flags = SA_SIGINFO | (by_flag ? (int)SA_RESETHAND : 0) };

	sigaction(taken_signal, &act, &thieves[0].before);
}

/*
 * A handler that leaves by a longjmp which does not restore the signal mask: the signal must not
 * stay blocked. Returns how many times it came back.
 */
static jmp_buf back;

static void jumping(int signo)
{
	(void)signo;
	longjmp(back, 1);
}

int jump_out(int times)
{
	struct sigaction act = { .sa_handler = jumping, .sa_flags = SA_NODEFER }, was;
	volatile int done = 0;

	close_own(&thieves[0]);
	sigaction(taken_signal, &act, &was);
	while (done < times)
		if (setjmp(back))
			done++;
		else
			*(volatile uint8_t *)thieves[0].own = 1;
	sigaction(taken_signal, &was, NULL);
	return done;
}

/* Returns: the store that it was called for faults again. */
static void returning(int signo)
{
	(void)signo;
	thieves[0].others++;
}

void steal_and_return(void)
{
	signal(taken_signal, returning);
}

void steal_alone(int n)
{
	thieves[n].alone = true;
	steal(n);
}

/* Put back the handler that was installed before. */
void withdraw(int n)
{
	sigaction(taken_signal, &thieves[n].before, NULL);
}

/* Cause a fault on handler n's own page; returns how many it has had. */
int fault_of_its_own(int n)
{
	close_own(&thieves[n]);
	*(volatile uint8_t *)thieves[n].own = 1;
	return thieves[n].own_faults;
}

int masks_lost(int n)
{
	return thieves[n].masks_lost;
}

int faults_of_others(int n)
{
	return thieves[n].others;
}

/* ------------------------------------------------------------------- a storm */

static volatile uint64_t *counters; /* in the arena: the handler itself stores to armed pages */
static uint64_t pages;
static volatile uint64_t stormed;
static atomic_int counting, calmed; /* handlers at work; none begins */

static void count(int signo)
{
	(void)signo;
	atomic_fetch_add(&counting, 1);
	if (!atomic_load(&calmed)) {
		counters[(stormed % pages) * (PAGE / 8)]++;
		stormed++;
	}
	atomic_fetch_sub(&counting, 1);
}

/*
 * Send SIGALRM by wall time and SIGPROF by CPU time, without SA_RESTART, so that system calls are
 * interrupted.
 */
void storm(void *memory, uint64_t size, long microseconds)
{
	struct sigaction act = { .sa_handler = count };
	struct itimerval every = { .it_interval = { .tv_usec = microseconds },
				   .it_value = { .tv_usec = microseconds } };

	counters = memory;
	pages = size / PAGE;
	atomic_store(&calmed, 0);
	sigaction(SIGALRM, &act, NULL);
	sigaction(SIGPROF, &act, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	setitimer(ITIMER_PROF, &every, NULL);
}

/* How many signals there were so far. */
uint64_t storms(void)
{
	return stormed;
}

/* None stores any more, on any thread, when it returns: also no signal that is still on its way. */
uint64_t calm(void)
{
	struct itimerval never = { 0 };

	setitimer(ITIMER_REAL, &never, NULL);
	setitimer(ITIMER_PROF, &never, NULL);
	atomic_store(&calmed, 1);
	while (atomic_load(&counting))
		sched_yield();
	return stormed;
}

/* ------------------------------------------- a signal's handler stores where the store is */

static volatile uint8_t *volatile here;
static volatile int ticks;

static void store_here(int signo)
{
	(void)signo;
	if (here) {
		*here = 9;
		ticks++;
	}
}

/*
 * Do `count` stores, `step` bytes apart. A SIGALRM may arrive at each, whose handler stores to the
 * same byte. Returns how many times the handler did.
 */
int walk_under_ticks(uint8_t *memory, uint64_t step, int count)
{
	struct sigaction act = { .sa_handler = store_here };
	struct itimerval every = { .it_interval = { .tv_usec = 50 },
				   .it_value = { .tv_usec = 50 } };

	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	for (int i = 0; i < count; i++) {
		here = memory + (uint64_t)i * step;
		*here = 1;
	}
	here = NULL;
	calm();
	return ticks;
}
