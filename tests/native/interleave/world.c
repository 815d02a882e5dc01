/* SPDX-License-Identifier: GPL-2.0-or-later */
/* world.c - see world.h: the beginning and the end of a run. */
#include "world_parts.h"

struct world_config world;
unsigned hook_run_bytes;
ldfs_dump *world_dump;

void world_begin(const struct world_config *config)
{
	world = *config;
	hook_run_bytes = world.pieces ? PAGE : 1u << 20;
	memory_begin();
	protection_begin();
	target_begin();
	rules_begin();
	locks_begin();
	clock_begin();
	handlers_begin();
	turn_deadlines((int)world.deadlines);
}

void world_dump_init(void)
{
	ldfs_extent all = { 0, (uint64_t)world.granules * PAGE, 0 };
	ldfs_dump_config config = {
		.granule_size = PAGE,
		.pool_size = (uint64_t)world.slots * PAGE,
		.spill_limit = (uint64_t)world.spill * PAGE,
		.policy = world.spill && !world.grows ? LDFS_POLICY_SPILL
			  : world.fail                ? LDFS_POLICY_FAIL
						      : LDFS_POLICY_BLOCK,
		.pool_auto = world.grows,
		.at_limit = world.holds ? LDFS_AT_LIMIT_HOLD : LDFS_AT_LIMIT_LOSE,
		.stall_deadline_ns = 100ull * SECOND,
		.arming = LDFS_ARM_MPROTECT,
		.backend = world.sigbus ? LDFS_BACKEND_SIGBUS : LDFS_BACKEND_SIGSEGV,
		.uffd_fd = -1,
		.target_fd = world.no_target ? -1 : target_file(),
		.extents = &all,
		.extent_count = 1,
		.table_fd = world.table ? target_table_file() : -1,
	};
	int rc = ldfs_dump_init(world_arena, &config, &world_dump);

	if (rc)
		violated("INIT: %d", rc);
	world_dump->islands_most = world.islands ? world.islands : INT64_MAX;
	rules_begin();
}

void world_dump_start(void)
{
	int rc = ldfs_dump_start(world_dump, NULL, SECOND);

	if (rc)
		violated("START: %d", rc);
}

void world_end(void)
{
	if (world_dump)
		violated("the dump was not freed");
	for (uint32_t g = 0; g < world.granules; g++)
		if (is_readonly(g))
			violated("granule %u: read-only after the end", g);
	protection_end();
	heap_end();
}

uint64_t world_state(void)
{
	uint64_t h = memory_state(0);

	h = protection_state(h);
	h = target_state(h);
	h = rules_state(h);
	h = locks_state(h);
	h = clock_state(h);
	h = heap_state(h);
	return dump_state(h);
}
