/* SPDX-License-Identifier: GPL-2.0-or-later */
/* board.c - a board as a whole: making it, its threads, its end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "board/within.h"

#define SECTOR 512u

static void open_devices(struct ldfs_board *b, const ldfs_board_plan *plan)
{
	struct disk *k = &b->disk;

	b->clock.due_ns = UINT64_MAX;
	store_seq(&b->clock.wake_ns, UINT64_MAX);
	pthread_mutex_init(&b->uart.lock, NULL);
	pthread_mutex_init(&k->lock, NULL);
	k->fd = plan->disk;
	k->sectors = plan->disk_size / SECTOR;
	k->read_only = plan->read_only;
	k->asked.last = &k->asked.first;
	k->done.last = &k->done.first;
}

static void drop_jobs(struct jobs *jobs)
{
	while (jobs->first) {
		struct job *job = jobs->first;

		jobs->first = job->next;
		ldfs_job_free(job);
	}
}

static void close_devices(struct ldfs_board *b)
{
	drop_jobs(&b->disk.asked);
	drop_jobs(&b->disk.done);
	pthread_mutex_destroy(&b->uart.lock);
	pthread_mutex_destroy(&b->disk.lock);
}

static bool take_parts(struct ldfs_board *b, const ldfs_board_plan *plan)
{
	if (plan->part_count > LDFS_BOARD_PARTS)
		return false;
	b->part_count = plan->part_count;
	for (uint32_t i = 0; i < plan->part_count; i++) {
		b->parts[i] = plan->parts[i];
		if (!ldfs_ram_at(b, b->parts[i].address, b->parts[i].size))
			return false;
	}
	return true;
}

int ldfs_board_create(const char *library, void *ram, const ldfs_board_plan *plan, ldfs_board **out,
		      char *why, size_t why_size)
{
	ldfs_ram_range range = { LDFS_BOARD_RAM, plan->ram_size, 0 };
	struct ldfs_board *b = aligned_alloc(CACHE_LINE, (sizeof(*b) + CACHE_LINE - 1) /
								 CACHE_LINE * CACHE_LINE);
	int rc;

	why[0] = 0;
	if (!b)
		return -ENOMEM;
	memset(b, 0, sizeof(*b));
	b->ram = ram;
	b->ram_size = plan->ram_size;
	b->entry = plan->entry;
	b->told = plan->told;
	open_devices(b, plan);
	rc = take_parts(b, plan) ? ldfs_machine_make(&ldfs_board_kind, b, library, ram, &range, 1,
						     1, &b->machine, why, why_size)
				 : -EINVAL;
	if (rc) {
		close_devices(b);
		free(b);
		return rc;
	}
	*out = b;
	return 0;
}

ldfs_machine *ldfs_board_machine(ldfs_board *b)
{
	return b->machine;
}

int ldfs_board_start(ldfs_board *b)
{
	int rc;

	if (b->started)
		return -EBUSY;
	b->started = true;
	ldfs_hart_reset(b);
	rc = ldfs_clock_start(b);
	if (!rc)
		rc = ldfs_disk_start(b);
	return rc ? rc : ldfs_machine_start(b->machine);
}

int ldfs_board_stop(ldfs_board *b, uint64_t deadline_ns)
{
	int rc = ldfs_machine_stop(b->machine, deadline_ns);

	if (rc || b->machine->pid != getpid())
		return rc;
	ldfs_clock_stop(b);
	return ldfs_disk_stop(b, deadline_ns) ? 0 : -ETIMEDOUT;
}

int ldfs_board_destroy(ldfs_board *b)
{
	bool forked = b->machine->pid != getpid();
	int rc;

	if (!forked && (b->clock.has_thread || b->disk.has_thread))
		return -EBUSY;
	rc = ldfs_machine_destroy(b->machine);
	if (rc || forked)
		return rc;
	close_devices(b);
	free(b);
	return 0;
}

void ldfs_board_status_of(ldfs_board *b, ldfs_board_status *out)
{
	memset(out, 0, sizeof(*out));
	out->off = load_seq(&b->off);
	out->boots = load_seq(&b->boots);
	out->ticks = load_seq(&b->clock.ticks);
	out->disk_reads = load_seq(&b->disk.reads);
	out->disk_writes = load_seq(&b->disk.writes);
	out->disk_errors = load_seq(&b->disk.errors);
}
