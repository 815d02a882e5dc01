/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fault_setup.c - install, verify, chain and remove the SIGSEGV handler; the arenas it serves.
 *
 * The handler is installed with the first arena and taken out with the last, if it is still the
 * installed one. A handler that somebody put on top is not fought between dumps: START refuses. While
 * memory is armed ours goes back on top of it (ldfs_fault_retake, called by guard.c).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

struct ldfs_fault_slot ldfs_fault_slots[LDFS_MAX_ARENAS];
_Atomic uint32_t ldfs_fault_slots_used;
struct sigaction ldfs_fault_previous;
_Atomic uint64_t ldfs_fault_chained;

static pthread_mutex_t setup_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned arenas; /* under setup_lock */
static bool stranded;   /* under setup_lock: somebody sits on top who may still call ours */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

struct sigaction ldfs_fault_thieves[LDFS_THIEVES_MOST];
_Atomic uint32_t ldfs_fault_thief;
static uint32_t thieves; /* under setup_lock; an entry never changes: a handler may be reading it */

static int put_ours(void)
{
	struct sigaction act = { .sa_sigaction = ldfs_fault_handler,
				 .sa_flags = SA_SIGINFO | SA_ONSTACK };

	/* No other handler runs on top of ours: it could be one that writes to armed memory. */
	sigfillset(&act.sa_mask);
	if (sigaction(SIGSEGV, &act, NULL))
		return -errno;
	return ldfs_fault_verify();
}

static int install(void)
{
	if (ldfs_fault_verify() == 0)
		return 0; /* a previous removal found somebody on top, who has left since */
	/*
	 * Somebody who is on top of a handler of ours chains to us: to take him for the one before us
	 * would make a ring. What was before us the first time is still right.
	 */
	/* Known before it is installed: the first fault may come at once. */
	if (!stranded && sigaction(SIGSEGV, NULL, &ldfs_fault_previous))
		return -errno;
	return put_ours();
}

static void uninstall(void)
{
	uint32_t thief = load_seq(&ldfs_fault_thief);

	stranded = ldfs_fault_verify() != 0;
	if (stranded)
		return;
	/* A thief gets back what it took. It may call ours, which passes everything on then. */
	sigaction(SIGSEGV, thief ? &ldfs_fault_thieves[thief - 1] : &ldfs_fault_previous, NULL);
	stranded = thief != 0;
}

/* Index + 1 of the entry; 0: no room. */
static uint32_t remember(const struct sigaction *act)
{
	for (uint32_t i = 0; i < thieves; i++)
		if (ldfs_fault_thieves[i].sa_sigaction == act->sa_sigaction &&
		    ldfs_fault_thieves[i].sa_flags == act->sa_flags)
			return i + 1;
	if (thieves == LDFS_THIEVES_MOST)
		return 0;
	ldfs_fault_thieves[thieves] = *act;
	return ++thieves;
}

/* Known before ours is back on top: a fault that is not ours may come at once. */
static int take_back(void)
{
	struct sigaction now;
	uint32_t thief;
	int rc;

	if (sigaction(SIGSEGV, NULL, &now))
		return -errno;
	thief = remember(&now);
	if (!thief)
		return -ENOSPC;
	store_seq(&ldfs_fault_thief, thief);
	rc = put_ours();
	return rc ? rc : 1;
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

/* The child has neither the arenas' memory nor the threads of their dumps: no fault of it is ours. */
static void forget_arenas(void)
{
	for (int i = 0; i < LDFS_MAX_ARENAS; i++) {
		struct ldfs_fault_slot *slot = &ldfs_fault_slots[i];

		store_seq(&slot->start, UINTPTR_MAX);
		store_seq(&slot->end, 0);
		store_seq(&slot->arena, NULL);
		store_seq(&slot->handlers, 0);
		store_seq(&slot->callers, 0);
	}
	if (arenas)
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

	if (sigaction(SIGSEGV, NULL, &now))
		return -errno;
	return now.sa_flags & SA_SIGINFO && now.sa_sigaction == ldfs_fault_handler ? 0 : -ENOTCONN;
}

static int take_slot(ldfs_arena *a)
{
	for (int i = 0; i < LDFS_MAX_ARENAS; i++) {
		struct ldfs_fault_slot *slot = &ldfs_fault_slots[i];

		if (load_seq(&slot->arena))
			continue;
		store_seq(&slot->arena, a);
		store_seq(&slot->end, (uintptr_t)a->live + a->size);
		store_seq(&slot->start, (uintptr_t)a->live);
		if (load_seq(&ldfs_fault_slots_used) <= (uint32_t)i)
			store_seq(&ldfs_fault_slots_used, (uint32_t)i + 1);
		return i;
	}
	return -ENFILE;
}

int ldfs_fault_register(ldfs_arena *a)
{
	int rc;

	pthread_once(&fork_once, watch_forks);
	pthread_mutex_lock(&setup_lock);
	rc = arenas ? 0 : install();
	if (!rc) {
		rc = take_slot(a);
		if (rc >= 0) {
			a->fault_slot = rc;
			arenas++;
			rc = 0;
		} else if (!arenas) {
			uninstall();
		}
	}
	pthread_mutex_unlock(&setup_lock);
	return rc;
}

void ldfs_fault_unregister(ldfs_arena *a)
{
	struct ldfs_fault_slot *slot = &ldfs_fault_slots[a->fault_slot];

	pthread_mutex_lock(&setup_lock);
	/* Range first: a handler that counts in after this finds nothing. Then those inside leave. */
	store_seq(&slot->start, UINTPTR_MAX);
	store_seq(&slot->end, 0);
	store_seq(&slot->arena, NULL);
	while (ldfs_fault_inside(a))
		usleep(50);
	if (--arenas == 0)
		uninstall();
	pthread_mutex_unlock(&setup_lock);
}

void ldfs_fault_enter(ldfs_arena *a)
{
	add_seq(&ldfs_fault_slots[a->fault_slot].callers, 1);
}

void ldfs_fault_leave(ldfs_arena *a)
{
	sub_seq(&ldfs_fault_slots[a->fault_slot].callers, 1);
}

uint32_t ldfs_fault_inside(const ldfs_arena *a)
{
	const struct ldfs_fault_slot *slot = &ldfs_fault_slots[a->fault_slot];

	return load_seq(&slot->handlers) + load_seq(&slot->callers);
}

/* The blocked signals of task `name` of this process; 0 when it has ended meanwhile. */
static uint64_t blocked_signals(const char *name)
{
	char path[64], line[256];
	uint64_t mask = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", name);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "SigBlk:", 7)) {
			mask = strtoull(line + 7, NULL, 16);
			break;
		}
	fclose(f);
	return mask;
}

/* Tasks that are in our handler now: they block everything that can be blocked. Callers do not. */
static uint32_t handlers_inside(void)
{
	uint32_t used = load_seq(&ldfs_fault_slots_used), sum = 0;

	for (uint32_t i = 0; i < used; i++)
		sum += load_seq(&ldfs_fault_slots[i].handlers);
	return sum;
}

static bool blocks_everything(uint64_t mask)
{
	/* SIGKILL, SIGSTOP, and the two that libc keeps for itself cannot be. */
	return (mask | 1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1) | 3ULL << 31) == UINT64_MAX;
}

int ldfs_fault_blocked_task(void)
{
	DIR *dir = opendir("/proc/self/task");
	uint32_t tolerated = handlers_inside(); /* e.g. a vCPU of another arena waits for a slot */
	struct dirent *entry;
	int found = 0;

	if (!dir)
		return -errno;
	while (!found && (entry = readdir(dir))) {
		uint64_t mask = entry->d_name[0] == '.' ? 0 : blocked_signals(entry->d_name);

		if (!(mask & 1ULL << (SIGSEGV - 1)))
			continue;
		if (tolerated && blocks_everything(mask))
			tolerated--;
		else
			found = atoi(entry->d_name);
	}
	closedir(dir);
	return found;
}
