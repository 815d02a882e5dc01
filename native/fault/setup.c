/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * setup.c - install, verify and remove the handler of SIGSEGV and SIGBUS, and put it back on top.
 *
 * The handler is installed for SIGSEGV with the first arena, for SIGBUS with the first dump that
 * needs it, and taken out with the last arena, if it is still the installed one. A handler that
 * another part of the program put on top is left there between dumps: START refuses. While memory
 * is armed guard.c has ours put back on top, at most twice in the life of a process over handlers
 * that call others; over one that it has been put over already, and over the default action, as
 * often as need be.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "fault/within.h"

static pthread_mutex_t setup_lock = PTHREAD_MUTEX_INITIALIZER;
/* One of the two signals. */
struct served {
	int signo;
	struct ldfs_fault_entry *chain;
	_Atomic uint8_t on_top; /* the entry that was last seen there; written under setup_lock */
	_Atomic uint8_t wanted; /* installed, while an arena is there; written under setup_lock */
	/* Under setup_lock. */
	unsigned entries;  /* entries [1, entries) have been put over a handler, and stay so */
	bool still_called; /* entry 0 may be called though it is not installed: it stays as it is */
};
static struct served signals[LDFS_CHAINS] = {
	{ .signo = SIGSEGV, .chain = ldfs_fault_chains[LDFS_CHAIN_SIGSEGV], .entries = 1 },
	{ .signo = SIGBUS, .chain = ldfs_fault_chains[LDFS_CHAIN_SIGBUS], .entries = 1 },
};
static unsigned arenas; /* under setup_lock */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static struct served *served(int signo)
{
	return &signals[signo == SIGBUS ? LDFS_CHAIN_SIGBUS : LDFS_CHAIN_SIGSEGV];
}

/* The entry of ours that it is, or -1. */
static int entry_of(const struct sigaction *act)
{
	for (int i = 0; i < LDFS_ENTRIES; i++)
		if (act->sa_sigaction == ldfs_fault_entries[i])
			return i;
	return -1;
}

/*
 * An entry as we install it. A handler that was put over it with signal(2) puts it back without its
 * flags, and then the kernel does not tell it the fault's address.
 */
static bool as_installed(const struct sigaction *act)
{
	return (act->sa_flags & (SA_SIGINFO | SA_ONSTACK)) == (SA_SIGINFO | SA_ONSTACK) &&
	       !(act->sa_flags & (int)SA_RESETHAND);
}

/* `handler` is a union with the longer form. */
static bool same(const struct sigaction *a, const struct sigaction *b)
{
	return a->sa_sigaction == b->sa_sigaction && !((a->sa_flags ^ b->sa_flags) & SA_SIGINFO);
}

static bool calls_none(const struct sigaction *act)
{
	return act->sa_handler == SIG_DFL || act->sa_handler == SIG_IGN;
}

/* Of the same handler: with the same mask, and as often. */
static bool called_alike(const struct sigaction *a, const struct sigaction *b)
{
	return calls_none(a) ||
	       (!((a->sa_flags ^ b->sa_flags) & (int)(SA_NODEFER | SA_RESETHAND)) &&
		!memcmp(&a->sa_mask, &b->sa_mask, sizeof(ldfs_fault_mask)));
}

static int put(struct served *s, int entry, struct sigaction *before)
{
	struct sigaction act = { .sa_sigaction = ldfs_fault_entries[entry],
				 .sa_flags = SA_SIGINFO | SA_ONSTACK };

	/* No other handler runs on top of ours: it could be one that writes to armed memory. */
	memcpy(&act.sa_mask, &ldfs_fault_mask, sizeof(ldfs_fault_mask));
	if (sigaction(s->signo, &act, before))
		return -errno;
	store_seq(&s->on_top, (uint8_t)entry);
	return 0;
}

static void make_entry(struct served *s, unsigned entry, const struct sigaction *found)
{
	struct ldfs_fault_entry *e = &s->chain[entry];

	e->below = *found;
	e->next = entry ? load_seq(&s->on_top) : LDFS_TO_NONE;
	store_seq(&e->to, (uint8_t)entry);
	store_seq(&e->spent, 0);
}

/*
 * `found` was put over entry i while entry i was over it: it now remembers entry i as the handler
 * before it, and would be called by it for ever.
 */
static void lead_past(struct ldfs_fault_entry *chain, unsigned i)
{
	uint8_t next = chain[i].next;

	store_seq(&chain[i].to, next == LDFS_TO_NONE ? next : load_seq(&chain[next].to));
}

/* The entry that may be put over `found`, or -ENOTCONN: none is left. */
static int entry_over(struct served *s, const struct sigaction *found)
{
	for (unsigned i = s->entries; i-- > 0;) {
		struct ldfs_fault_entry *e = &s->chain[i];

		if (!same(&e->below, found) || load_seq(&e->to) != i)
			continue;
		/* It had withdrawn, and came again over an entry further down: nothing is new. */
		if (calls_none(found) || i > load_seq(&s->on_top)) {
			if (!called_alike(&e->below, found))
				continue;
			store_seq(&e->spent, 0);
			return (int)i;
		}
		lead_past(s->chain, i);
	}
	if (s->entries == LDFS_ENTRIES)
		return -ENOTCONN;
	/* Known before it is installed: a fault that is not ours may come at once. */
	make_entry(s, s->entries, found);
	return (int)s->entries++;
}

/* `stays` was found where `ours` had just been put: it and what comes meanwhile stay on top. */
static void leave_on_top(int signo, struct sigaction stays, struct sigaction ours)
{
	struct sigaction there;

	while (!sigaction(signo, &stays, &there) && !same(&there, &ours)) {
		ours = stays;
		stays = there;
	}
}

/* Put ours over `found`, and over one that is installed while we do it. */
static int put_over(struct served *s, struct sigaction found)
{
	struct sigaction expected = found, there;

	for (;;) {
		/* An entry of ours there: the handler over it has withdrawn. */
		int entry = entry_of(&found), rc;

		if (entry < 0)
			entry = entry_over(s, &found);
		if (entry < 0) {
			if (!same(&found, &expected))
				leave_on_top(s->signo, found, expected);
			return entry;
		}
		rc = put(s, entry, &there);
		if (rc || same(&there, &expected))
			return rc;
		found = there;
		expected = (struct sigaction){ .sa_sigaction = ldfs_fault_entries[entry],
					       .sa_flags = SA_SIGINFO };
	}
}

/* ldfs_fault_verify, under setup_lock. */
static int look(struct served *s)
{
	struct sigaction now;
	int entry;

	if (sigaction(s->signo, NULL, &now))
		return -errno;
	entry = entry_of(&now);
	if (entry < 0)
		return -ENOTCONN;
	if (!as_installed(&now))
		return put_over(s, now);
	store_seq(&s->on_top, (uint8_t)entry); /* the handler over it may have withdrawn */
	return 0;
}

static int install(struct served *s)
{
	struct sigaction found;
	int rc;

	store_seq(&s->wanted, 1);
	if (look(s) == 0)
		return 0; /* what kept it from being removed has withdrawn since */
	if (sigaction(s->signo, NULL, &found))
		return -errno;
	if (s->still_called) {
		rc = put_over(s, found);
		return rc == -ENOTCONN ? 0 : rc; /* START refuses, and uffd needs no handler */
	}
	/* Known before it is installed: the first fault may come at once. */
	make_entry(s, 0, &found);
	return put(s, 0, NULL);
}

static void uninstall(struct served *s)
{
	struct sigaction now, none = { .sa_handler = SIG_DFL };
	int entry = sigaction(s->signo, NULL, &now) ? -1 : entry_of(&now);
	struct ldfs_fault_entry *e = &s->chain[entry < 0 ? 0 : entry];

	store_seq(&s->wanted, 0);
	s->still_called = entry != 0;
	if (entry < 0)
		return;
	/* The handler below has the signal back. It may call ours, which passes everything on. */
	sigaction(s->signo, load_seq(&e->spent) ? &none : &e->below, NULL);
	store_seq(&s->on_top, entry ? e->next : 0);
}

static void uninstall_all(void)
{
	for (unsigned i = 0; i < LDFS_CHAINS; i++)
		if (load_seq(&signals[i].wanted))
			uninstall(&signals[i]);
}

int ldfs_fault_retake(int signo)
{
	struct served *s = served(signo);
	struct sigaction found;
	int rc = 0;

	if (ldfs_fault_verify(signo) == 0)
		return 0;
	pthread_mutex_lock(&setup_lock);
	if (look(s) != 0) {
		rc = sigaction(signo, NULL, &found) ? -errno : put_over(s, found);
		rc = rc ? rc : 1;
	}
	pthread_mutex_unlock(&setup_lock);
	return rc;
}

/* ------------------------------------------------------------------- fork */

static void lock_setup(void)
{
	pthread_mutex_lock(&setup_lock);
}

static void unlock_setup(void)
{
	pthread_mutex_unlock(&setup_lock);
}

/* The child has views of its own, and no threads of dumps: no fault of it is ours to save for. */
static void forget_arenas(void)
{
	bool all_there = ldfs_seats_forget();

	if (arenas && all_there)
		uninstall_all();
	arenas = 0;
	pthread_mutex_unlock(&setup_lock);
}

static void watch_forks(void)
{
	pthread_atfork(lock_setup, unlock_setup, forget_arenas);
}

int ldfs_fault_verify(int signo)
{
	struct served *s = served(signo);
	struct sigaction now;
	int entry, rc;

	if (signo == SIGBUS && !load_seq(&s->wanted))
		return 0;
	if (sigaction(signo, NULL, &now))
		return -errno;
	entry = entry_of(&now);
	if (entry < 0)
		return -ENOTCONN;
	if (as_installed(&now) && entry == load_seq(&s->on_top))
		return 0;
	/* on_top changes under the lock only: what was just read may have changed since. */
	pthread_mutex_lock(&setup_lock);
	rc = look(s);
	pthread_mutex_unlock(&setup_lock);
	return rc;
}

int ldfs_fault_register(ldfs_arena *a)
{
	int rc;

	pthread_once(&fork_once, watch_forks);
	pthread_mutex_lock(&setup_lock);
	rc = arenas ? 0 : install(served(SIGSEGV));
	if (!rc) {
		rc = ldfs_seats_take(a);
		if (!rc)
			arenas++;
		else if (!arenas)
			uninstall_all();
	}
	pthread_mutex_unlock(&setup_lock);
	return rc;
}

void ldfs_fault_unregister(ldfs_arena *a)
{
	pthread_mutex_lock(&setup_lock);
	ldfs_seats_give(a);
	if (--arenas == 0)
		uninstall_all();
	pthread_mutex_unlock(&setup_lock);
}

int ldfs_fault_serve_sigbus(void)
{
	struct served *s = served(SIGBUS);
	int rc = 0;

	pthread_mutex_lock(&setup_lock);
	if (!load_seq(&s->wanted))
		rc = install(s);
	pthread_mutex_unlock(&setup_lock);
	return rc;
}
