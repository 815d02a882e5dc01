/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * chain.c - a SIGSEGV or SIGBUS that is not ours goes to the handler that would have got it without
 * us. [signal]
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "fault/within.h"

struct ldfs_fault_entry ldfs_fault_chains[LDFS_CHAINS][LDFS_ENTRIES];
_Atomic uint64_t ldfs_fault_chained;

/*
 * Sets of signals as the kernel has them: 64, also where libc's have room for more. SIGKILL and
 * SIGSTOP are never blocked, and 33 must not be: with it libc has each thread change its user
 * (setuid(7), nptl(7)), and waits until the last has done it.
 */
#define SIGNAL_BIT(signo) (1ull << ((signo) - 1))
#define SIGSETXID 33
const uint64_t ldfs_fault_mask = ~(SIGNAL_BIT(SIGKILL) | SIGNAL_BIT(SIGSTOP) |
				   SIGNAL_BIT(SIGSETXID));

uint64_t ldfs_fault_set_mask(uint64_t mask)
{
	uint64_t was;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &was, sizeof(mask));
	return was;
}

/*
 * Whether it comes again by itself when the handler returns. Not so a signal that was sent, and
 * what the kernel says of broken memory that no thread touches (PR_MCE_KILL of prctl(2)).
 */
static bool is_fault(int signo, const siginfo_t *info)
{
	return info->si_code > 0 && !(signo == SIGBUS && info->si_code == BUS_MCEERR_AO);
}

static void die_of(int signo, const siginfo_t *info)
{
	struct sigaction act = { .sa_handler = SIG_DFL };

	sigaction(signo, &act, NULL);
	/* A fault comes again by itself; a signal that was sent does not. It is delivered when the
	 * handler returns and the signal is unblocked. */
	if (!is_fault(signo, info))
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signo);
}

/* As the kernel calls a handler: with its mask. */
static void call(const struct sigaction *to, int signo, siginfo_t *info, ucontext_t *context)
{
	uint64_t was, mask, more;

	memcpy(&mask, &context->uc_sigmask, sizeof(mask));
	memcpy(&more, &to->sa_mask, sizeof(more));
	mask |= more;
	if (!(to->sa_flags & SA_NODEFER))
		mask |= 1ULL << (signo - 1);
	was = ldfs_fault_set_mask(mask);
	if (to->sa_flags & SA_SIGINFO)
		to->sa_sigaction(signo, info, context);
	else
		to->sa_handler(signo);
	ldfs_fault_set_mask(was);
}

/* A handler with SA_RESETHAND is called once; afterwards the default action is there instead. */
static bool is_default(struct ldfs_fault_entry *e)
{
	if (e->below.sa_handler == SIG_DFL)
		return true;
	return e->below.sa_flags & SA_RESETHAND && exchange_seq(&e->spent, 1);
}

void ldfs_fault_pass_on(unsigned entry, int signo, siginfo_t *info, void *context)
{
	struct ldfs_fault_entry *chain = ldfs_fault_chain(signo);
	uint8_t to = load_seq(&chain[entry].to);
	struct ldfs_fault_entry *e = &chain[to % LDFS_ENTRIES];

	add_relaxed(&ldfs_fault_chained, 1);
	if (to == LDFS_TO_NONE)
		die_of(signo, info);
	/* As in the kernel, these two are no functions, whatever the flags say. */
	else if (e->below.sa_handler == SIG_IGN)
		is_fault(signo, info) ? die_of(signo, info) : (void)0;
	else if (is_default(e))
		die_of(signo, info);
	else
		call(&e->below, signo, info, context);
}
