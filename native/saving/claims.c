/* SPDX-License-Identifier: GPL-2.0-or-later */
/* claims.c - which granules a thread that sweeps takes next, how many, and when it may. */
#include "saving/within.h"

uint32_t ldfs_sweep_run_most(const ldfs_dump *d)
{
	bool small = d->sweep_rate || !load_relaxed(&d->target.direct) ||
		     load_relaxed(&d->ring.in_use);
	uint32_t bytes = small ? LDFS_RUN_BYTES : LDFS_RUN_DIRECT;

	return bytes >> d->granule_shift ? bytes >> d->granule_shift : 1;
}

bool ldfs_sweep_claim(ldfs_dump *d, uint32_t *first, uint32_t *end, uint32_t limit)
{
	uint32_t most = ldfs_sweep_run_most(d);
	uint32_t g = *first;

	while (g < limit && !ldfs_step_sweep(d, g))
		g++;
	if (g == limit)
		return false;
	*first = g++;
	while (g < limit && g - *first < most && ldfs_step_sweep(d, g))
		g++;
	*end = g;
	return true;
}

bool ldfs_sweep_begun(const ldfs_dump *d)
{
	return load_seq(&d->phase) == LDFS_PHASE_SWEEPING && load_seq(&d->sweep_start_ns);
}

bool ldfs_sweep_next(ldfs_dump *d, uint32_t *first, uint32_t *limit)
{
	uint32_t most = ldfs_sweep_run_most(d);
	uint64_t next;

	if (load_seq(&d->sweep_next) >= d->granules)
		return false;
	/* 64 bits: it cannot wrap around, however often threads add to it at the end. */
	next = add_seq(&d->sweep_next, most);
	if (next >= d->granules)
		return false;
	*first = (uint32_t)next;
	*limit = d->granules - *first < most ? d->granules : *first + most;
	return true;
}

/* When the rate allows the next write; at most a day, for absurdly low rates. */
uint64_t ldfs_sweep_due_ns(const ldfs_dump *d)
{
	double ns;

	if (!d->sweep_rate)
		return 0;
	ns = (double)load_relaxed(&d->swept) * 1e9 / (double)d->sweep_rate;
	return load_seq(&d->sweep_start_ns) + (ns < 86400e9 ? (uint64_t)ns : (uint64_t)86400e9);
}
