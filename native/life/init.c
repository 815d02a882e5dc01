/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * init.c - INIT: makes everything that a dump needs while the machine runs; nothing is armed yet.
 * docs/concurrency.md says why the order is this one.
 */
#include <errno.h>

#include "life/life.h"

#define AUTO_LEAST (1u << 20) /* bytes of slots at INIT with pool auto, however little there is */

/* No granule is smaller than a page of the memory. */
static uint64_t granule_default(const ldfs_arena *a)
{
	uint64_t granule = ldfs_granule_default(a->size);

	return granule > a->page ? granule : a->page;
}

static int check_config(const ldfs_arena *a, const ldfs_dump_config *c, uint64_t granule)
{
	if (granule < a->page || granule > GRANULE_MOST || granule & (granule - 1))
		return -EINVAL;
	if (c->policy > LDFS_POLICY_SPILL || c->arming > LDFS_ARM_MPROTECT ||
	    c->backend > LDFS_BACKEND_SIGBUS || c->at_limit > LDFS_AT_LIMIT_HOLD ||
	    c->pool_size == 0)
		return -EINVAL;
	if ((a->size + granule - 1) / granule >= UINT32_MAX)
		return -EINVAL;
	/* Huge pages cannot be moved. */
	if (ldfs_arena_huge(a) && c->arming == LDFS_ARM_SWAP)
		return -EINVAL;
	return 0;
}

/* More slots than granules are never needed. */
static uint64_t slots_for(const ldfs_dump *d, uint64_t bytes)
{
	uint64_t part = bytes & ((1ULL << d->granule_shift) - 1);
	uint64_t slots = (bytes >> d->granule_shift) + (part != 0);

	return slots > d->granules ? d->granules : slots;
}

/* With pool auto half of what is available now: the keepers add the rest when there is more. */
static uint64_t slots_at_first(const ldfs_dump *d, const ldfs_dump_config *c)
{
	uint64_t bytes = c->pool_size;

	while (c->pool_auto && bytes / 2 >= AUTO_LEAST && !ldfs_headroom_ram(2 * bytes))
		bytes /= 2;
	return slots_for(d, bytes);
}

static int make_ring(ldfs_dump *d, const ldfs_dump_config *c)
{
	uint64_t made = slots_at_first(d, c), limit = made;
	int rc;

	if (c->pool_auto || c->policy == LDFS_POLICY_SPILL)
		limit = slots_for(d, c->spill_limit);
	limit = limit > made ? limit : made;
	if (!ldfs_headroom(made << d->granule_shift))
		return -errno;
	rc = ldfs_ring_init(&d->ring, 1ULL << d->granule_shift, made, limit);
	if (rc)
		return rc;
	d->ring.follows = d->ring.grows && c->pool_auto;
	if (d->ring.follows) {
		store_seq(&d->ring.ahead, (uint32_t)made / 4);
		store_seq(&d->ring.short_of, 1); /* until a keeper has looked */
	}
	return ldfs_batch_init(&d->writer_batch, &d->ring);
}

/* So that stores are noticed; nothing is armed. */
static int prepare_backend(ldfs_dump *d, const ldfs_dump_config *c)
{
	int rc = 0;

	if (d->backend == LDFS_BACKEND_SIGBUS)
		rc = ldfs_fault_serve_sigbus();
	if (!rc && ldfs_uffd_protects(d->backend))
		rc = ldfs_monitor_start(d->arena, d->backend, c->uffd_fd);
	return rc ? rc : ldfs_track_prepare(d, c);
}

/* *by_backend: what failed is d->backend, and another one may be possible. */
static int prepare(ldfs_dump *d, const ldfs_dump_config *c, bool *by_backend)
{
	unsigned turns = 0;
	int rc;

	/* A discard that found no owner may not have punched its hole yet: wait until it has. */
	while (ldfs_fault_inside(d->arena))
		ldfs_event_soon(&turns);
	ldfs_afterwards_stop(d->arena);
	rc = ldfs_target_init(&d->target, c, d->arena->size);
	if (!rc)
		rc = ldfs_pack_init(d, c);
	if (!rc)
		rc = ldfs_table_init(d, c);
	if (!rc)
		rc = make_ring(d, c);
	if (!rc)
		rc = ldfs_packers_init(d, c->threads);
	if (!rc)
		rc = ldfs_table_write_empty(d);
	if (!rc)
		ldfs_helpers_init(d);
	if (!rc) {
		rc = prepare_backend(d, c);
		*by_backend = rc;
	}
	if (!rc)
		rc = ldfs_arena_prepare_observer(d->arena);
	if (!rc)
		rc = ldfs_life_find_full(d);
	return rc ? rc : ldfs_life_start_threads(d);
}

/* A dump by SIGSEGV may need the descriptors more. */
static void give_up_sigbus(ldfs_arena *a)
{
	ldfs_afterwards_stop(a); /* it protects with them */
	ldfs_monitor_give_up(a);
}

/* `config` names a backend. */
static int init_by_one(ldfs_arena *a, const ldfs_dump_config *config, ldfs_dump **out,
		       bool *by_backend)
{
	uint64_t granule = config->granule_size ? config->granule_size : granule_default(a);
	ldfs_dump *d, *none = NULL;
	int rc;

	*by_backend = false;
	rc = ldfs_arena_foreign(a) ? -ECHILD : check_config(a, config, granule);

	if (rc)
		return rc;
	d = ldfs_life_new(a, config, granule);
	if (!d)
		return -ENOMEM;
	/* Before other threads can find the dump as the arena's owner. */
	rc = ldfs_life_make_granules(d);
	if (rc) {
		ldfs_life_free(d);
		return rc;
	}
	if (!cas_seq(&a->owner, &none, d)) {
		ldfs_life_free(d);
		return -EBUSY;
	}
	rc = prepare(d, config, by_backend);
	if (rc) {
		/*
		 * Threads that run already have nothing to do yet; they end when the phase is
		 * RELEASED.
		 */
		ldfs_dump_release(d);
		if (d->backend == LDFS_BACKEND_SIGBUS)
			give_up_sigbus(a);
		ldfs_life_end(d);
		return rc;
	}
	*out = d;
	return 0;
}

/*
 * AUTO: what SIGBUS lacks (a descriptor, a thread, memory for page tables) SIGSEGV may not need. An
 * error of both is the first one's, which has seen the arena as it was.
 */
int ldfs_dump_init(ldfs_arena *a, const ldfs_dump_config *config, ldfs_dump **out)
{
	ldfs_dump_config one = *config;
	bool by_backend;
	int rc;

	if (config->backend != LDFS_BACKEND_AUTO)
		return init_by_one(a, config, out, &by_backend);
	one.backend = LDFS_BACKEND_SIGBUS;
	rc = init_by_one(a, &one, out, &by_backend);
	if (!by_backend)
		return rc;
	one.backend = LDFS_BACKEND_SIGSEGV;
	return init_by_one(a, &one, out, &by_backend) ? rc : 0;
}
