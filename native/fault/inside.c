/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * inside.c - the handler of SIGSEGV and SIGBUS.
 *
 *   THIS CODE RUNS IN A SIGNAL HANDLER, ON THE STACK OF A MACHINE'S vCPU OR OF ANY PYTHON THREAD.
 *   - async-signal-safe calls only: the allow-list is in tests/native/test_signal_safety.py
 *   - no locks, no allocation, no Python, no floating point
 *   - no text, but for ldfs_child_tell, in a process that is about to die
 *   - errno is saved and restored
 *   - it may sleep only for a free slot, where may_wait says so, or for another thread's copy
 *
 * The order of a fault, and why it is this one, is in docs/concurrency.md, "The fault path"; saving
 * itself is in save.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fault/access.h"
#include "fault/within.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

static void count_fault(ldfs_dump *d, uint64_t ns)
{
	unsigned bin = ns ? 63u - (unsigned)__builtin_clzll(ns) : 0;

	if (bin >= LDFS_HISTOGRAM_BINS)
		bin = LDFS_HISTOGRAM_BINS - 1;
	add_relaxed(&d->faults, 1);
	add_relaxed(&d->handler_ns[bin], 1);
	add_relaxed(&d->handler_sum_ns, ns);
	raise_u64(&d->stall_max_ns, ns);
}

void ldfs_fault_save_for(ldfs_dump *d, uint32_t g)
{
	uint64_t before = ldfs_now_ns();

	ldfs_save_make_writable(d, g, true);
	count_fault(d, ldfs_now_ns() - before);
}

/*
 * Whether the store should be tried again though it is nothing that we protect (any more). It
 * succeeds if the page can be made writable by a page fault. If not, the fault is passed on: the
 * program itself has made the page read-only, or there is no memory for it (SIGBUS).
 */
static bool populates(const ldfs_arena *a, uintptr_t address)
{
	return !syscall(SYS_madvise, address & ~(a->page - 1), a->page, MADV_POPULATE_WRITE);
}

/* A write fault at `address` in the arena of `seat`, already counted in. */
static bool fault_in_arena(struct ldfs_fault_seat *seat, int signo, uintptr_t address)
{
	ldfs_arena *a = load_seq(&seat->arena);
	uintptr_t start = load_seq(&seat->start);
	ldfs_dump *d;
	uint32_t g;

	/* The range was first looked at before this thread was counted in: the arena may have gone
	 * since. */
	if (!a || address < start || address >= load_seq(&seat->end))
		return false;
	d = load_seq(&a->dump);
	if (!d || !ldfs_fault_signal(d->backend))
		return populates(a, address);
	g = ldfs_granule_of(d, address - start);
	/*
	 * A SIGBUS has other causes too, and so has a SIGSEGV where we protect by userfaultfd. They
	 * show when the granule is open: then the kernel is asked. Our handler of SIGBUS is there
	 * after a dump by SIGBUS, whatever protects the memory now.
	 */
	if ((signo == SIGBUS || d->backend == LDFS_BACKEND_SIGBUS) && load_seq(&d->writable[g]))
		return populates(a, address);
	ldfs_fault_save_for(d, g);
	return true;
}

static bool write_fault(int signo, uintptr_t address)
{
	uint32_t used = load_seq(&ldfs_fault_seats_used);

	for (uint32_t i = 0; i < used; i++) {
		struct ldfs_fault_seat *seat = &ldfs_fault_seats[i];
		uint64_t mask;
		bool ours;

		if (address < load_relaxed(&seat->start) || address >= load_relaxed(&seat->end))
			continue;
		/*
		 * Another handler that called this one may have left signals open. Their
		 * handlers could store to the granule that this thread is about to claim, and wait
		 * for it for ever.
		 */
		mask = ldfs_fault_set_mask(ldfs_fault_mask);
		add_seq(&seat->handlers, 1);
		ours = fault_in_arena(seat, signo, address);
		sub_seq(&seat->handlers, 1);
		if ((mask & ldfs_fault_mask) != ldfs_fault_mask)
			ldfs_fault_set_mask(mask);
		if (ours)
			return true;
	}
	return false;
}

/* Whether memory is armed so that a store gets this signal. */
static bool any_armed(int signo)
{
	uint32_t used = load_seq(&ldfs_fault_seats_used);
	bool armed = false;

	for (uint32_t i = 0; i < used && !armed; i++) {
		struct ldfs_fault_seat *seat = &ldfs_fault_seats[i];
		ldfs_arena *a;
		ldfs_dump *d;

		add_seq(&seat->handlers, 1);
		a = load_seq(&seat->arena);
		d = a ? load_seq(&a->dump) : NULL;
		armed = d && ldfs_fault_signal(d->backend) == signo;
		sub_seq(&seat->handlers, 1);
	}
	return armed;
}

static bool is_ours(int signo, const siginfo_t *info, const ucontext_t *context)
{
	if (info->si_code == (signo == SIGBUS ? BUS_ADRERR : SEGV_ACCERR))
		return was_store(context) && write_fault(signo, (uintptr_t)info->si_addr);
	/*
	 * A signal that this process sent itself while memory is armed. Python's faulthandler does
	 * that when it was enabled after our handler and a store to armed memory reached it first:
	 * it prints its report, installs the handler that it had found (an entry of ours), and
	 * calls raise() with it. That signal has no address. So it is dropped: the interrupted
	 * store runs again and faults again, and this time the fault comes to us with its address.
	 * A real crash faults again in the same way, and is passed on.
	 */
	if (info->si_code == SI_TKILL)
		return info->si_pid == getpid() && any_armed(signo);
	return false;
}

void ldfs_fault_handler(unsigned entry, int signo, siginfo_t *info, void *context)
{
	int saved = errno;

	if (!is_ours(signo, info, context)) {
		ldfs_child_tell(info);
		ldfs_fault_pass_on(entry, signo, info, context);
	}
	errno = saved;
}

static void entry_0(int signo, siginfo_t *info, void *context)
{
	ldfs_fault_handler(0, signo, info, context);
}

static void entry_1(int signo, siginfo_t *info, void *context)
{
	ldfs_fault_handler(1, signo, info, context);
}

static void entry_2(int signo, siginfo_t *info, void *context)
{
	ldfs_fault_handler(2, signo, info, context);
}

void (*const ldfs_fault_entries[LDFS_ENTRIES])(int, siginfo_t *, void *) = {
	entry_0,
	entry_1,
	entry_2,
};
