/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * floor.c - the parts that no way of handling a fault in user space can avoid, each one measured
 * alone: medians in ns.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "peer.h"

#define TIMES 4001
#define STORE_LENGTH 3 /* bytes of "movb $1, (%rax)" */

static uint64_t found[TIMES];

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t median(void)
{
	qsort(found, TIMES, sizeof(found[0]), compare);
	return found[TIMES / 2];
}

static void step_over(int signo, siginfo_t *info, void *context)
{
	(void)signo, (void)info;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += STORE_LENGTH;
}

/* A store that faults, with a handler that only continues behind the store. */
static uint64_t signal_alone(uint8_t *page)
{
	for (int i = 0; i < TIMES; i++) {
		uint64_t before = now_ns();

		__asm__ volatile("movb $1, (%%rax)" : : "a"(page) : "memory");
		found[i] = now_ns() - before;
	}
	return median();
}

/* Make one page in the middle of a mapping writable, which splits the mapping twice. */
static uint64_t protect_alone(uint8_t *page)
{
	for (int i = 0; i < TIMES; i++) {
		uint64_t before = now_ns();

		mprotect(page, PAGE, PROT_READ | PROT_WRITE);
		found[i] = now_ns() - before;
		mprotect(page, PAGE, PROT_READ);
	}
	return median();
}

static uint64_t copy_alone(uint8_t *to, const uint8_t *from)
{
	for (int i = 0; i < TIMES; i++) {
		uint64_t before = now_ns();

		memcpy(to + (uint64_t)i * PAGE, from + (uint64_t)i * PAGE, PAGE);
		found[i] = now_ns() - before;
	}
	return median();
}

static uint64_t clock_alone(void)
{
	for (int i = 0; i < TIMES; i++) {
		uint64_t before = now_ns();

		found[i] = now_ns() - before;
	}
	return median();
}

int print_floor(void)
{
	struct sigaction act = { .sa_sigaction = step_over, .sa_flags = SA_SIGINFO };
	uint64_t size = TIMES * PAGE;
	uint8_t *from = mmap(NULL, size, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint8_t *to = mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (from == MAP_FAILED || to == MAP_FAILED || sigaction(SIGSEGV, &act, NULL))
		return -errno;
	printf("{\"clock_ns\":%lu,\"copy_ns\":%lu,", clock_alone(), copy_alone(to, from));
	mprotect(from, size, PROT_READ);
	printf("\"mprotect_ns\":%lu,", protect_alone(from + size / 2 / PAGE * PAGE));
	printf("\"signal_ns\":%lu}\n", signal_alone(from));
	return 0;
}
