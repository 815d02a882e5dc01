/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world_protection.c - which pages are read-only, and the faults of actors that store there. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "fault/access.h"
#include "world_parts.h"

#define UFFD 12345 /* a descriptor that no file has */

bool world_stop;
uint32_t world_in_store;

static uint8_t protection[GRANULES_MOST]; /* 1: read-only */
static bool in_fault[ACTORS_MOST];
static uint8_t enomem_met[ACTORS_MOST]; /* in the fault that the actor is in */

void protection_begin(void)
{
	memset(protection, 0, sizeof(protection));
	memset(in_fault, 0, sizeof(in_fault));
	memset(enomem_met, 0, sizeof(enomem_met));
	world_stop = false;
	world_in_store = 0;
	if (world.sigbus) {
		/* Its monitor has no work: START by mprotect's way moves no mapping. */
		world_arena->uffd.fd = UFFD;
		world_arena->uffd.backend = LDFS_BACKEND_SIGBUS;
	}
}

void protection_end(void)
{
	if (world_arena)
		world_arena->uffd.fd = -1;
}

uint64_t protection_state(uint64_t h)
{
	for (uint32_t g = 0; g < world.granules; g++)
		h = mix(h, protection[g]);
	for (int i = 0; i < ACTORS_MOST; i++)
		h = mix(h, enomem_met[i]);
	return mix(h,
		   world_stop | (uint64_t)world.start_fails << 1 | (uint64_t)world_in_store << 8);
}

bool is_readonly(uint32_t g)
{
	return protection[g];
}

/* ------------------------------------------------------------------- mprotect */

static uint32_t mappings_with(uint32_t first, uint32_t last)
{
	uint32_t count = 1;

	for (uint32_t g = 1; g < world.granules; g++) {
		bool here = protection[g] && (g < first || g > last);
		bool before = protection[g - 1] && (g - 1 < first || g - 1 > last);

		count += here != before;
	}
	return count;
}

static int open_range(uint32_t first, uint32_t last)
{
	if (world.mappings && mappings_with(first, last) > world.mappings) {
		if (in_fault[actor_now()] && ++enomem_met[actor_now()] > 1)
			violated("widening once was not enough");
		errno = ENOMEM;
		return -1;
	}
	for (uint32_t g = first; g <= last; g++) {
		if (protection[g] && is_promised() && !is_safe(g))
			violated("granule %u: made writable in state %u", g,
				 atomic_load(&world_dump->state[g]));
		protection[g] = 0;
	}
	return 0;
}

static int close_range_of(uint32_t first, uint32_t last)
{
	if (world.start_fails) {
		world.start_fails = false;
		protection[first] = 1;
		errno = ENOMEM;
		return -1;
	}
	memory_take_instant();
	memset(protection + first, 1, last - first + 1);
	return 0;
}

static bool is_live(const void *start)
{
	return world_arena && (uintptr_t)start - (uintptr_t)world_arena->live < world_arena->size;
}

int hook_mprotect(void *start, size_t length, int prot)
{
	uint32_t first, last;
	int rc;

	if (!is_live(start))
		return mprotect(start, length, prot);
	STEP("mprotect");
	first = memory_granule(start);
	last = first + (uint32_t)(length / PAGE) - 1;
	rc = prot & PROT_WRITE ? open_range(first, last) : close_range_of(first, last);
	actor_wrote();
	actor_saw((uint64_t)rc);
	return rc;
}

/* UFFDIO_UNREGISTER takes the protection, too. */
int hook_ioctl(int fd, unsigned long request, void *argument)
{
	const struct uffdio_writeprotect *w = argument;
	uint32_t first, last;
	int rc;

	if (fd != UFFD)
		return ioctl(fd, request, argument);
	if (request == UFFDIO_REGISTER)
		return 0;
	STEP("ioctl");
	/* Both arguments begin with the range. */
	first = memory_granule((void *)(uintptr_t)w->range.start);
	last = first + (uint32_t)(w->range.len / PAGE) - 1;
	rc = request == UFFDIO_WRITEPROTECT && w->mode ? close_range_of(first, last)
						       : open_range(first, last);
	actor_wrote();
	actor_saw((uint64_t)rc);
	return rc;
}

/*
 * Of a handler that found no dump, or with SIGBUS an open granule: then the store must succeed.
 */
long protection_populate(const uint8_t *page)
{
	uint32_t g = memory_granule(page);

	STEP("populate");
	if (protection[g])
		violated("granule %u: armed, and without a dump, or called open", g);
	return 0;
}

/* --------------------------------------------------------------------- stores */

#ifdef __aarch64__
/* Behind another record, as the kernel has it. */
static void tell_of_store(ucontext_t *context)
{
	struct fpsimd_context *before = (void *)context->uc_mcontext.__reserved;
	struct esr_context *esr = (void *)(before + 1);

	before->head = (struct _aarch64_ctx){ FPSIMD_MAGIC, sizeof(*before) };
	esr->head = (struct _aarch64_ctx){ ESR_MAGIC, sizeof(*esr) };
	esr->esr = (uint64_t)DATA_ABORT_OF_USER << 26 | ESR_WRITE;
}
#else
static void tell_of_store(ucontext_t *context)
{
	context->uc_mcontext.gregs[REG_ERR] = PAGE_FAULT_WRITE;
}
#endif

static void fault(uint32_t g, unsigned half)
{
	siginfo_t info = { .si_signo = world_signal(),
			   .si_code = world.sigbus ? BUS_ADRERR : SEGV_ACCERR,
			   .si_addr = world_arena->live + (uint64_t)g * PAGE + half * HALF };
	ucontext_t context = { 0 };

	tell_of_store(&context);
	in_fault[actor_now()] = true;
	enomem_met[actor_now()] = 0;
	ldfs_fault_handler(0, world_signal(), &info, &context);
	in_fault[actor_now()] = false;
}

static void park(void)
{
	world_in_store--;
	actor_wrote();
	while (world_stop)
		turn_spin();
	world_in_store++;
}

void world_store(uint32_t g, unsigned half)
{
	world_in_store++;
	for (;;) {
		STEP("store");
		if (world_stop && !world.unstopped) {
			park();
			continue;
		}
		if (!protection[g])
			break;
		fault(g, half);
		if (protection[g])
			turn_spin();
	}
	if (is_promised() && !is_safe(g))
		violated("granule %u: a store before its bytes are safe", g);
	world_in_store--;
	memory_store(g, half);
}
