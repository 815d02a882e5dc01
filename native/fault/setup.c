/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * setup.c - install, verify and remove the SIGSEGV handler, and put it back on top.
 *
 * The handler is installed with the first arena and taken out with the last, if it is still the
 * installed one. A handler that somebody put on top is not fought between dumps: START refuses.
 * While memory is armed ours goes back on top of it (ldfs_fault_retake, called by guard.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "fault/within.h"

static _Atomic uint8_t on_top; /* the entry that was last seen there */

static pthread_mutex_t setup_lock = PTHREAD_MUTEX_INITIALIZER;
/* Under setup_lock, down to the line. */
static unsigned arenas;
static unsigned entries = 1;    /* [1, entries) have been put over somebody, and stay as they are */
static bool stranded;           /* somebody sits on top who may still call an entry of ours */
static unsigned stranded_entry; /* that was over him when the last arena went; 0: none was */
/* ---- */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* The entry of ours that it is, or -1. */
static int entry_of(const struct sigaction *act)
{
	if (act->sa_flags & SA_SIGINFO)
		for (int i = 0; i < LDFS_ENTRIES; i++)
			if (act->sa_sigaction == ldfs_fault_entries[i])
				return i;
	return -1;
}

/* `handler` is a union with the longer form. */
static bool same(const struct sigaction *a, const struct sigaction *b)
{
	return a->sa_sigaction == b->sa_sigaction && !((a->sa_flags ^ b->sa_flags) & SA_SIGINFO);
}

static bool calls_nobody(const struct sigaction *act)
{
	return act->sa_handler == SIG_DFL || act->sa_handler == SIG_IGN;
}

static int put(int entry, struct sigaction *before)
{
	struct sigaction act = { .sa_sigaction = ldfs_fault_entries[entry],
				 .sa_flags = SA_SIGINFO | SA_ONSTACK };

	/* No other handler runs on top of ours: it could be one that writes to armed memory. */
	memcpy(&act.sa_mask, &ldfs_fault_mask, sizeof(ldfs_fault_mask));
	if (sigaction(SIGSEGV, &act, before))
		return -errno;
	store_seq(&on_top, (uint8_t)entry);
	return 0;
}

static void make_entry(unsigned entry, const struct sigaction *found)
{
	struct ldfs_fault_entry *e = &ldfs_fault_chain[entry];

	e->below = *found;
	e->next = entry ? load_seq(&on_top) : 0;
	store_seq(&e->moved, 0);
	store_seq(&e->spent, 0);
	for (unsigned i = 0; !calls_nobody(found) && i < entry; i++)
		if (same(&ldfs_fault_chain[i].below, found))
			store_seq(&ldfs_fault_chain[i].moved, 1);
}

/* The entry that is to be put over `found`; 0: none is left. */
static int entry_over(const struct sigaction *found)
{
	if (calls_nobody(found))
		for (unsigned i = 1; i < entries; i++)
			if (same(&ldfs_fault_chain[i].below, found))
				return (int)i;
	if (stranded && stranded_entry && same(&ldfs_fault_chain[stranded_entry].below, found))
		return (int)stranded_entry;
	if (entries == LDFS_ENTRIES)
		return 0;
	/* Known before it is installed: a fault that is not ours may come at once. */
	make_entry(entries, found);
	return (int)entries++;
}

/* Put ours over whoever is there, also over one who comes while we do it. */
static int take_back(void)
{
	struct sigaction found, there, expected;
	int rc = sigaction(SIGSEGV, NULL, &found) ? -errno : 0;
	bool left_out = false;

	expected = found;
	while (!rc) {
		/* An entry of ours there: who was over it has withdrawn. */
		int entry = entry_of(&found);

		if (entry < 0)
			entry = entry_over(&found);
		if (entry == 0 && entry_of(&found) < 0) {
			left_out = true;
			entry = LDFS_ENTRIES - 1; /* leads to all the others */
		}
		rc = put(entry, &there);
		if (rc || same(&there, &expected))
			break;
		found = there;
		expected = (struct sigaction){ .sa_sigaction = ldfs_fault_entries[entry],
					       .sa_flags = SA_SIGINFO };
	}
	return rc ? rc : left_out ? 2 : 1;
}

static int install(void)
{
	struct sigaction found;
	int rc;

	if (ldfs_fault_verify() == 0) {
		stranded = false; /* a previous removal found somebody on top, who has left since */
		return 0;
	}
	/* What was before us the first time is still right when somebody is there who calls us. */
	if (stranded) {
		rc = take_back();
		stranded = false;
		return rc < 0 ? rc : 0;
	}
	/* Known before it is installed: the first fault may come at once. */
	if (sigaction(SIGSEGV, NULL, &found))
		return -errno;
	make_entry(0, &found);
	return put(0, NULL);
}

static void give_back(struct ldfs_fault_entry *e)
{
	struct sigaction nobody = { .sa_handler = SIG_DFL };

	sigaction(SIGSEGV, load_seq(&e->spent) ? &nobody : &e->below, NULL);
}

static void uninstall(void)
{
	struct sigaction now;
	int entry = sigaction(SIGSEGV, NULL, &now) ? -1 : entry_of(&now);

	stranded = entry != 0;
	stranded_entry = entry > 0 ? (unsigned)entry : 0;
	/* Who is below gets back what was taken from him. He may call ours, which passes everything
	 * on then. */
	if (entry >= 0)
		give_back(&ldfs_fault_chain[entry]);
}

int ldfs_fault_retake(void)
{
	int rc = 0;

	if (ldfs_fault_verify() == 0)
		return 0;
	pthread_mutex_lock(&setup_lock);
	if (ldfs_fault_verify() != 0)
		rc = take_back();
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
	bool all_there = ldfs_slots_forget();

	if (arenas && all_there)
		uninstall();
	arenas = 0;
	pthread_mutex_unlock(&setup_lock);
}

static void watch_forks(void)
{
	pthread_atfork(lock_setup, unlock_setup, forget_arenas);
}

int ldfs_fault_verify(void)
{
	struct sigaction now;
	int entry;

	if (sigaction(SIGSEGV, NULL, &now))
		return -errno;
	entry = entry_of(&now);
	if (entry < 0)
		return -ENOTCONN;
	store_seq(&on_top, (uint8_t)entry); /* who was over it may have withdrawn */
	return 0;
}

int ldfs_fault_register(ldfs_arena *a)
{
	int rc;

	pthread_once(&fork_once, watch_forks);
	pthread_mutex_lock(&setup_lock);
	rc = arenas ? 0 : install();
	if (!rc) {
		rc = ldfs_slots_take(a);
		if (!rc)
			arenas++;
		else if (!arenas)
			uninstall();
	}
	pthread_mutex_unlock(&setup_lock);
	return rc;
}

void ldfs_fault_unregister(ldfs_arena *a)
{
	pthread_mutex_lock(&setup_lock);
	ldfs_slots_give(a);
	if (--arenas == 0)
		uninstall();
	pthread_mutex_unlock(&setup_lock);
}
