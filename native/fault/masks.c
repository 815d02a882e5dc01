/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * masks.c - no task of the process may block the signal that stores get while memory is armed: its
 * next store would end the process.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault/within.h"

/* For a task that blocks the signal for a moment only: it may have to wait for a processor. */
#define MASK_PATIENCE_NS 2000000000u

/*
 * Threads of allocators, by the names that they give themselves: they block all signals for good,
 * and store to no memory but their own. pyarrow has one, and with it pandas, xarray and Dask.
 */
static const char *const STORE_NOWHERE[] = { "jemalloc_bg_thd" };

static bool stores_nowhere(const char *status_line)
{
	char name[32] = "";

	if (sscanf(status_line, "Name: %31s", name) != 1)
		return false;
	for (size_t i = 0; i < sizeof(STORE_NOWHERE) / sizeof(*STORE_NOWHERE); i++)
		if (!strcmp(name, STORE_NOWHERE[i]))
			return true;
	return false;
}

/*
 * The blocked signals of task `name` of this process; 0 when it has ended meanwhile, or stores to
 * no arena.
 */
static uint64_t blocked_signals(const char *name)
{
	char path[64], line[256];
	uint64_t mask = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", name);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (stores_nowhere(line))
			break;
		if (!strncmp(line, "SigBlk:", 7)) {
			mask = strtoull(line + 7, NULL, 16);
			break;
		}
	}
	fclose(f);
	return mask;
}

static bool blocks_everything(uint64_t mask)
{
	/* SIGKILL, SIGSTOP, and the two that libc keeps for itself cannot be. */
	return (mask | 1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1) | 3ULL << 31) == UINT64_MAX;
}

int ldfs_fault_blocked_task(int signo)
{
	DIR *dir = opendir("/proc/self/task");
	/* A handler blocks all signals, also while a vCPU of another arena waits for a slot. */
	uint32_t tolerated = ldfs_seats_handlers();
	struct dirent *entry;
	int found = 0;

	if (!dir)
		return -errno;
	while (!found && (entry = readdir(dir))) {
		uint64_t mask = entry->d_name[0] == '.' ? 0 : blocked_signals(entry->d_name);

		if (!(mask & 1ULL << (signo - 1)))
			continue;
		if (tolerated && blocks_everything(mask))
			tolerated--;
		else
			found = atoi(entry->d_name);
	}
	closedir(dir);
	return found;
}

/* A task inside a handler, or being created, blocks all signals for a moment: that passes. */
int ldfs_fault_check(int signo)
{
	uint64_t deadline_ns = ldfs_deadline(MASK_PATIENCE_NS);
	int rc = ldfs_fault_verify(signo);

	if (rc)
		return rc;
	while ((rc = ldfs_fault_blocked_task(signo)) > 0 && ldfs_now_ns() < deadline_ns)
		usleep(1000);
	return rc > 0 ? -EDEADLK : rc;
}
