/* SPDX-License-Identifier: GPL-2.0-or-later */
/* counters.c - reading a dump's phase, its counters, and the states of its granules. */
#include <errno.h>

#include "life/life.h"

int ldfs_dump_phase(const ldfs_dump *d)
{
	return (int)load_seq(&d->phase);
}

uint32_t ldfs_dump_backend(const ldfs_dump *d)
{
	return d->backend;
}

static void copy_failure(const ldfs_dump *d, ldfs_failure *out)
{
	if (load_seq(&d->failure_taken) == 2)
		*out = d->failure;
	else
		*out = (ldfs_failure){ .pfn = UINT64_MAX };
}

void ldfs_dump_counters(const ldfs_dump *d, ldfs_counters *out)
{
	*out = (ldfs_counters){
		.granule_size = 1ULL << d->granule_shift,
		.granules = d->granules,
		.faults = load_relaxed(&d->faults),
		.steals = load_relaxed(&d->steals),
		.by_fault = load_relaxed(&d->final_count[LDFS_BY_FAULT - 1]) +
			    load_relaxed(&d->final_count[LDFS_BY_STEAL - 1]),
		.by_sweep = load_relaxed(&d->final_count[LDFS_BY_SWEEP - 1]),
		.holes = load_relaxed(&d->holes),
		.lost = load_relaxed(&d->lost),
		.remaining = load_seq(&d->remaining),
		.widened = load_relaxed(&d->widened),
		.slots = load_relaxed(&d->ring.made),
		.slots_peak = load_relaxed(&d->ring.peak),
		.slots_most = load_relaxed(&d->ring.most),
		.helpers_most = load_relaxed(&d->effort.most),
		.slot_waits = load_relaxed(&d->slot_waits),
		.slot_wait_ns = load_relaxed(&d->slot_wait_ns),
		.spilled = load_relaxed(&d->spilled),
		.bytes_written = load_relaxed(&d->swept) + load_relaxed(&d->bytes_pool),
		.bytes_pool = load_relaxed(&d->bytes_pool),
		.target_end = d->pack.on ? load_seq(&d->pack.end) : 0,
		.stall_max_ns = load_relaxed(&d->stall_max_ns),
		.handler_sum_ns = load_relaxed(&d->handler_sum_ns),
		.quiesce_ns = d->quiesce_ns,
		.arm_ns = d->arm_ns,
		.resume_ns = d->resume_ns,
		.pause_ns = d->pause_ns,
		.instant_mono_ns = d->instant_mono_ns,
		.instant_wall_ns = d->instant_wall_ns,
		.sweep_start_ns = load_relaxed(&d->sweep_start_ns),
		.drained_ns = load_relaxed(&d->drained_ns),
		.gave_up = load_seq(&d->gave_up),
		.abandoned = load_seq(&d->abandoned),
		.not_durable = load_seq(&d->not_durable),
		.chained = load_relaxed(&ldfs_fault_chained),
		.retaken = load_relaxed(&d->retaken),
		.omitted = load_relaxed(&d->omitted),
		.tracking = d->tracking,
		.since = load_relaxed(&d->since),
	};
	for (int i = 0; i < LDFS_HISTOGRAM_BINS; i++)
		out->handler_ns[i] = load_relaxed(&d->handler_ns[i]);
	copy_failure(d, &out->failure);
}

int ldfs_dump_states(const ldfs_dump *d, uint32_t first, uint32_t count, uint8_t *out)
{
	if (first > d->granules || count > d->granules - first)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++)
		out[i] = ldfs_state(d, first + i);
	return 0;
}

/* ldfs_step_publish writes `how` before it leaves a state in which this does not read it. */
static uint8_t mark(const ldfs_dump *d, uint32_t g)
{
	uint8_t state = ldfs_state(d, g);
	bool published = state == LDFS_G_IN_SLOT || state == LDFS_G_STOLEN || state == LDFS_G_SAVED;

	return published ? (uint8_t)(state | d->how[g] << 4) : state;
}

int ldfs_dump_marks(const ldfs_dump *d, uint32_t first, uint32_t count, uint8_t *out)
{
	if (first > d->granules || count > d->granules - first)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++)
		out[i] = mark(d, first + i);
	return 0;
}
