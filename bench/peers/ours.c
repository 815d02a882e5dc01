/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ours.c - the core of this project, with its own stop, pool and granule table. */
#include <errno.h>
#include <string.h>

#include "ldfs.h"
#include "peer.h"

#define SECOND 1000000000ull
#define POOL (64ull << 20)

static ldfs_arena *arena;
static ldfs_dump *dump;

static int map(struct bench *b)
{
	int rc = ldfs_arena_create_of(b->opt.size, b->opt.pages, &arena);

	if (rc)
		return rc;
	b->memory = ldfs_arena_live(arena);
	b->memfd = ldfs_arena_memfd(arena);
	return 0;
}

static int prepare(struct bench *b)
{
	ldfs_extent extent = { 0, b->opt.size, 0 };
	uint64_t page = ldfs_arena_page_size(arena), usual = ldfs_granule_default(b->opt.size);
	uint64_t granule = b->opt.granule ? b->opt.granule : usual > page ? usual : page;
	/* Without a target nothing frees a slot before the end. */
	uint64_t pool = b->opt.pool ? b->opt.pool : b->target < 0 ? b->opt.size : POOL;
	ldfs_dump_config config = {
		.granule_size = granule,
		.pool_size = pool > granule ? pool : granule,
		.spill_limit = b->opt.size + granule,
		.stall_deadline_ns = 60 * SECOND,
		.policy = b->opt.policy,
		.backend = b->opt.backend,
		.arming = b->opt.arming,
#ifdef POOL_AUTO
		.pool_auto = b->opt.pool_auto,
#endif
		.uffd_fd = -1,
		.target_fd = b->target,
		.target_reads_zero = 0,
		.extents = &extent,
		.extent_count = 1,
		.table_fd = b->target,
		.table_offset = b->opt.size,
	};

	return ldfs_dump_init(arena, &config, &dump);
}

static int quiesce(void *ctx, uint64_t deadline_ns)
{
	(void)ctx, (void)deadline_ns;
	writers_stop();
	return 0;
}

static void capture(void *ctx)
{
	keep_reference(ctx);
}

static void resume(void *ctx)
{
	(void)ctx;
	writers_go();
}

static int start(struct bench *b)
{
	ldfs_quiesce_ops ops = { quiesce, capture, resume, b, 1 };
	ldfs_counters c;
	int rc = ldfs_dump_start(dump, &ops, 10 * SECOND);

	if (rc)
		return rc;
	ldfs_dump_counters(dump, &c);
	b->times.quiesce = c.quiesce_ns;
	b->times.arm = c.arm_ns;
	b->times.resume = c.resume_ns;
	b->instant_ns = c.instant_mono_ns;
	return 0;
}

static int sweep(struct bench *b)
{
	ldfs_counters c;
	int rc = ldfs_dump_sweep(dump);

	if (!rc)
		rc = ldfs_dump_wait(dump, 600 * SECOND);
	ldfs_dump_counters(dump, &c);
	b->save_max_ns = c.stall_max_ns;
	b->slot_waits = c.slot_waits;
	return rc ? rc : c.lost || c.failure.error ? -EIO : 0;
}

static int finish(struct bench *b)
{
	ldfs_counters c;
	int rc;

	ldfs_dump_counters(dump, &c);
	b->served = c.slots_peak; /* without a target no slot is freed before */
	rc = ldfs_dump_release(dump);
	return rc ? rc : ldfs_dump_free(dump);
}

const struct peer ours = { "ours", map, prepare, start, sweep, finish };
