/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dump.c - the life of one dump: INIT, START, SWEEP, drained, RELEASE. The only file that calls the
 * others in order; docs/concurrency.md says why the orders are these.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define GRANULE_LEAST (64u << 10)     /* default; cheaper per page than 4 KiB, see docs/performance.md */
#define GRANULE_MOST (64ULL << 20)
#define MAP_COUNT_MARGIN 1024u        /* mappings that the process may still make during a dump */
#define RELEASE_PATIENCE_NS 2000000000u /* for threads in I/O, before RELEASE says EINPROGRESS */
#define EIO_TOLERATED 16              /* failed writes before the target counts as gone */
#define COPY_PIECE (1u << 20)

/* ----------------------------------------------------------------- failures */

void ldfs_fail(ldfs_dump *d, uint32_t operation, int error, uint64_t pfn)
{
	uint32_t none = 0;

	/* Whatever failed first: such a dump is not on the target. */
	if (operation == LDFS_OP_SYNC || operation == LDFS_OP_WRITE_TABLE)
		store_seq(&d->not_durable, 1);
	if (!cas_seq(&d->failure_taken, &none, 1))
		return;
	d->failure = (ldfs_failure){ .operation = operation, .error = error, .pfn = pfn };
	store_seq(&d->failure_taken, 2);
}

void ldfs_give_up(ldfs_dump *d)
{
	store_seq(&d->gave_up, 1);
	ldfs_event_notify(&d->ring.freed);
}

void ldfs_target_failed(ldfs_dump *d, int error, uint64_t pfn)
{
	ldfs_fail(d, LDFS_OP_WRITE_DATA, -error, pfn);
	if (error != -EIO || add_seq(&d->eio_count, 1) + 1 >= EIO_TOLERATED)
		store_seq(&d->abandoned, 1);
	ldfs_give_up(d);
}

/* ------------------------------------------------------------------ granules */

static uint64_t count_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	uint64_t lines = 0;
	int c;

	if (!f)
		return 0;
	while ((c = getc_unlocked(f)) != EOF)
		lines += c == '\n';
	fclose(f);
	return lines;
}

static uint64_t max_map_count(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long long value = 65530;

	if (f) {
		if (fscanf(f, "%llu", &value) != 1)
			value = 65530;
		fclose(f);
	}
	return value;
}

/* Mappings that protections may cost, the process's own and a margin left out. At least 2. */
static uint64_t map_room(void)
{
	uint64_t used = count_maps() + MAP_COUNT_MARGIN, limit = max_map_count();

	return limit > used + 2 ? limit - used : 2;
}

uint64_t ldfs_granule_default(uint64_t arena_size)
{
	uint64_t room = map_room(), size = GRANULE_LEAST;

	while (size < GRANULE_MOST && (arena_size + size - 1) / size > room)
		size *= 2;
	return size;
}

/* Not over a discard's mark: it may punch what was just seen as data. */
static void mark_full(ldfs_dump *d, uint32_t g)
{
	uint8_t unknown = 0;

	cas_seq(&d->full[g], &unknown, GRANULE_FULL);
}

/* Mark the granules that have no hole now: only those may be read through a view by the handler. */
static int find_full(ldfs_dump *d)
{
	uint64_t start, end = 0, size = 1ULL << d->granule_shift;
	int error;

	while (ldfs_arena_next_data(d->arena, end, d->arena->size, &start, &end, &error)) {
		uint32_t g = ldfs_granule_of(d, start + size - 1);

		while (g < d->granules &&
		       ldfs_granule_start(d, g) + ldfs_granule_length(d, g) <= end)
			mark_full(d, g++);
	}
	return error;
}

static int make_granules(ldfs_dump *d)
{
	d->state = calloc(d->granules, sizeof(*d->state)); /* LDFS_G_ARMED is 0 */
	d->writable = calloc(d->granules, sizeof(*d->writable));
	d->full = calloc(d->granules, sizeof(*d->full));
	d->slot_of = calloc(d->granules, sizeof(*d->slot_of));
	d->checksum = calloc(d->granules, sizeof(*d->checksum));
	d->how = calloc(d->granules, sizeof(*d->how));
	d->sweep_scratch = ldfs_buffer_make(1ULL << d->granule_shift);
	if (!d->state || !d->writable || !d->full || !d->slot_of || !d->checksum || !d->how ||
	    !d->sweep_scratch)
		return -ENOMEM;
	store_seq(&d->remaining, d->granules);
	d->islands_most = (int64_t)(map_room() / 2);
	return 0;
}

/* ---------------------------------------------------------------------- INIT */

static int check_config(const ldfs_arena *a, const ldfs_dump_config *c, uint64_t granule)
{
	if (granule < LDFS_PAGE_SIZE || granule > GRANULE_MOST || granule & (granule - 1))
		return -EINVAL;
	if (c->policy > LDFS_POLICY_SPILL || c->arming > LDFS_ARM_MPROTECT ||
	    c->backend > LDFS_BACKEND_UFFD || c->pool_size == 0)
		return -EINVAL;
	if ((a->size + granule - 1) / granule >= UINT32_MAX)
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

static int make_ring(ldfs_dump *d, const ldfs_dump_config *c)
{
	bool grows = c->policy == LDFS_POLICY_SPILL && c->spill_limit > c->pool_size;
	uint64_t made = slots_for(d, c->pool_size);
	uint64_t limit = grows ? slots_for(d, c->spill_limit) : made;
	int rc = -ENOMEM;

	if (ldfs_headroom(made << d->granule_shift))
		rc = ldfs_ring_init(&d->ring, 1ULL << d->granule_shift, made, limit, grows);
	if (rc)
		return rc;
	return ldfs_batch_init(&d->writer_batch, &d->ring);
}

static int start_thread(ldfs_dump *d, pthread_t *thread, void *(*main)(void *), const char *name)
{
	int rc;

	add_seq(&d->threads_running, 1);
	rc = ldfs_thread_start(thread, main, d, name);
	if (rc)
		ldfs_thread_ended(d);
	return rc;
}

static int start_threads(ldfs_dump *d)
{
	int rc = 0;

	if (d->pack.on) {
		rc = ldfs_packers_start(d);
	} else if (d->target.fd >= 0) {
		rc = start_thread(d, &d->writer_thread, ldfs_writer_main, "ldfs-writer");
		d->writer_made = rc == 0;
	}
	if (!rc && d->target.fd >= 0) {
		rc = start_thread(d, &d->sweep_thread, ldfs_sweep_main, "ldfs-sweep");
		d->sweep_made = rc == 0;
	}
	if (!rc && d->ring.grows) {
		rc = start_thread(d, &d->ring.keeper, ldfs_ring_keeper, "ldfs-keeper");
		d->ring.keeper_made = rc == 0;
	}
	if (!rc && d->backend == LDFS_BACKEND_SIGSEGV) {
		rc = start_thread(d, &d->guard_thread, ldfs_guard_main, "ldfs-guard");
		d->guard_made = rc == 0;
	}
	return rc;
}

static void join_threads(ldfs_dump *d)
{
	if (d->sweep_made)
		pthread_join(d->sweep_thread, NULL);
	if (d->writer_made)
		pthread_join(d->writer_thread, NULL);
	ldfs_packers_join(d);
	if (d->ring.keeper_made)
		pthread_join(d->ring.keeper, NULL);
	if (d->guard_made)
		pthread_join(d->guard_thread, NULL);
}

static int prepare(ldfs_dump *d, const ldfs_dump_config *c)
{
	unsigned turns = 0;
	int rc;

	/* A discard that found no owner just before may not have punched yet. */
	while (ldfs_fault_inside(d->arena))
		ldfs_event_soon(&turns);
	ldfs_huge_stop(d->arena);
	rc = find_full(d);
	if (!rc)
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
		rc = ldfs_arena_prepare_observer(d->arena);
	if (!rc && d->backend == LDFS_BACKEND_UFFD)
		rc = ldfs_uffd_open(d->arena, c->uffd_fd);
	if (!rc && d->arming == LDFS_ARM_SWAP)
		rc = ldfs_arena_prepare_shadow(d->arena, d->backend);
	return rc ? rc : start_threads(d);
}

static void free_dump(ldfs_dump *d)
{
	ldfs_packers_destroy(d);
	ldfs_pack_destroy(d);
	ldfs_table_destroy(d);
	ldfs_target_destroy(&d->target);
	ldfs_ring_destroy(&d->ring);
	if (d->reference_fd >= 0)
		close(d->reference_fd);
	free((void *)d->state);
	free((void *)d->writable);
	free((void *)d->full);
	free((void *)d->slot_of);
	free(d->checksum);
	free(d->how);
	ldfs_buffer_free(d->sweep_scratch, 1ULL << d->granule_shift);
	free(d->writer_batch.slots);
	free(d);
}

static ldfs_dump *new_dump(ldfs_arena *a, const ldfs_dump_config *c, uint64_t granule)
{
	ldfs_dump *d = aligned_alloc(CACHE_LINE, (sizeof(*d) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);

	if (!d)
		return NULL;
	memset(d, 0, sizeof(*d));
	d->arena = a;
	d->granule_shift = (uint32_t)__builtin_ctzll(granule);
	d->granules = (uint32_t)((a->size + granule - 1) / granule);
	d->policy = c->policy;
	d->arming = c->arming;
	d->backend = c->backend;
	d->sweep_rate = c->sweep_rate;
	d->stall_deadline_ns = c->stall_deadline_ns;
	d->target.fd = d->target.direct_fd = d->table.fd = d->reference_fd = -1;
	d->phase = LDFS_PHASE_READY;
	if (c->reference_fd >= 0)
		d->reference_fd = fcntl(c->reference_fd, F_DUPFD_CLOEXEC, 3);
	return d;
}

static int give_back(ldfs_dump *d)
{
	ldfs_arena *a = d->arena;

	store_seq(&a->owner, NULL);
	/* ldfs_arena_discard may have found the owner just before. */
	while (ldfs_fault_inside(a))
		usleep(50);
	free_dump(d);
	return 0;
}

int ldfs_dump_init(ldfs_arena *a, const ldfs_dump_config *config, ldfs_dump **out)
{
	uint64_t granule = config->granule_size ? config->granule_size : ldfs_granule_default(a->size);
	ldfs_dump *d, *none = NULL;
	int rc = ldfs_arena_foreign(a) ? -ECHILD : check_config(a, config, granule);

	if (rc)
		return rc;
	d = new_dump(a, config, granule);
	if (!d)
		return -ENOMEM;
	/* Before others can find it as the arena's owner. */
	rc = make_granules(d);
	if (rc) {
		free_dump(d);
		return rc;
	}
	if (!cas_seq(&a->owner, &none, d)) {
		free_dump(d);
		return -EBUSY;
	}
	rc = prepare(d, config);
	if (rc) {
		/* Threads that run already have nothing to do yet, and end by the phase. */
		ldfs_dump_release(d);
		join_threads(d);
		give_back(d);
		return rc;
	}
	*out = d;
	return 0;
}

/* --------------------------------------------------------------------- START */

static uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* For tests: the arena as it is at the snapshot instant, holes left out. */
static int copy_reference(ldfs_dump *d)
{
	uint64_t start, end = 0, at;
	uint8_t *piece = malloc(COPY_PIECE);
	int rc = piece ? 0 : -ENOMEM;

	while (!rc && ldfs_arena_next_data(d->arena, end, d->arena->size, &start, &end, &rc))
		for (at = start; !rc && at < end; at += COPY_PIECE) {
			uint64_t length = end - at < COPY_PIECE ? end - at : COPY_PIECE;

			rc = ldfs_read_all(d->arena->memfd, piece, length, at);
			if (!rc)
				rc = ldfs_write_all(d->reference_fd, piece, length, at);
		}
	free(piece);
	return rc;
}

/* Without its dump a read-only page would fault for ever: so it is unlinked only when none is left. */
static void disarm(ldfs_dump *d)
{
	while (ldfs_arena_unprotect_all(d->arena, d->backend))
		usleep(1000);
	ldfs_arena_forget(d->arena, d->backend);
	store_seq(&d->arena->dump, NULL);
}

static int arm(ldfs_dump *d)
{
	/* The swap is over when the monitor has read of it. */
	pid_t monitor = d->backend == LDFS_BACKEND_UFFD ? load_seq(&d->arena->uffd.tid) : 0;
	bool urgent = ldfs_urgent_raise(0), monitor_too = monitor && ldfs_urgent_raise(monitor);
	unsigned turns = 0;
	int rc;

	/* Before the first fault can come. Whoever saw no dump and is still at it - a discard between
	 * its save and its punch - ends before anything is armed. */
	store_seq(&d->arena->dump, d);
	while (ldfs_fault_inside(d->arena))
		ldfs_event_soon(&turns);
	rc = d->arming == LDFS_ARM_SWAP ? ldfs_arena_swap(d->arena)
					  : ldfs_arena_protect(d->arena, d->backend);
	if (monitor_too)
		ldfs_urgent_lower(monitor);
	if (urgent)
		ldfs_urgent_lower(0);
	if (rc)
		disarm(d); /* mprotect may have done a part of it */
	return rc;
}

/* The machine stands. */
static int take_instant(ldfs_dump *d, const ldfs_quiesce_ops *ops)
{
	int rc = 0;

	if (ops && ops->capture)
		ops->capture(ops->ctx);
	if (d->reference_fd >= 0)
		rc = copy_reference(d);
	if (rc)
		return rc;
	d->instant_wall_ns = wall_ns();
	d->instant_mono_ns = ldfs_now_ns();
	rc = arm(d);
	d->arm_ns = ldfs_now_ns() - d->instant_mono_ns;
	return rc;
}

static int stop_and_go(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns)
{
	uint64_t asked = ldfs_now_ns(), stopped, armed;
	uint32_t ready = LDFS_PHASE_READY;
	int rc = 0;

	if (ops && ops->quiesce)
		rc = ops->quiesce(ops->ctx, ldfs_deadline(quiesce_ns));
	if (rc)
		return rc;
	stopped = ldfs_now_ns();
	rc = take_instant(d, ops);
	armed = ldfs_now_ns();
	if (!rc && !cas_seq(&d->phase, &ready, LDFS_PHASE_ARMED)) {
		disarm(d); /* RELEASE came meanwhile and found nothing to free */
		rc = -ECANCELED;
	}
	if (ops && ops->resume)
		ops->resume(ops->ctx);
	d->quiesce_ns = stopped - asked;
	d->resume_ns = ldfs_now_ns() - armed;
	d->pause_ns = ldfs_now_ns() - asked;
	ldfs_event_notify(&d->guard_wake);
	return rc;
}

static int stop_arm_resume(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns)
{
	bool urgent = ops && ops->patient && ldfs_urgent_raise(0);
	int rc = stop_and_go(d, ops, quiesce_ns);

	if (urgent)
		ldfs_urgent_lower(0);
	return rc;
}

int ldfs_dump_start(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns)
{
	int rc;

	if (ldfs_arena_foreign(d->arena))
		return -ECHILD;
	if (ldfs_dump_phase(d) != LDFS_PHASE_READY)
		return -EINVAL;
	rc = d->backend == LDFS_BACKEND_SIGSEGV ? ldfs_fault_check() : 0;
	if (!rc && d->arming == LDFS_ARM_SWAP && !d->arena->shadow_ready)
		rc = ldfs_arena_prepare_shadow(d->arena, d->backend); /* an earlier START failed halfway */
	return rc ? rc : stop_arm_resume(d, ops, quiesce_ns);
}

/* --------------------------------------------------------------- SWEEP, wait */

int ldfs_dump_sweep(ldfs_dump *d)
{
	uint32_t phase = LDFS_PHASE_ARMED;

	if (ldfs_arena_foreign(d->arena))
		return -ECHILD;
	if (d->target.fd < 0 || !cas_seq(&d->phase, &phase, LDFS_PHASE_SWEEPING))
		return -EINVAL;
	ldfs_event_notify(&d->progress);
	return 0;
}

static int wait_answer(const ldfs_dump *d)
{
	switch (ldfs_dump_phase(d)) {
	case LDFS_PHASE_DRAINED:
		return 0;
	case LDFS_PHASE_RELEASED:
		return -ECANCELED;
	}
	return -ETIMEDOUT;
}

int ldfs_dump_wait(ldfs_dump *d, uint64_t timeout_ns)
{
	uint64_t deadline_ns = ldfs_deadline(timeout_ns);
	int rc;

	if (ldfs_arena_foreign(d->arena))
		return -ECHILD;
	add_seq(&d->readers, 1); /* so that RELEASE waits until we are out of it */
	for (;;) {
		uint32_t seen = ldfs_event_prepare(&d->progress);

		rc = wait_answer(d);
		if (rc != -ETIMEDOUT || ldfs_now_ns() >= deadline_ns)
			break;
		ldfs_event_wait(&d->progress, seen, deadline_ns);
	}
	ldfs_event_cancel(&d->progress);
	sub_seq(&d->readers, 1);
	return rc;
}

/* -------------------------------------------------------------------- RELEASE */

static void wake_everybody(ldfs_dump *d)
{
	ldfs_event_notify(&d->ring.freed);
	ldfs_event_notify(&d->ring.arrived);
	ldfs_event_notify(&d->ring.low);
	ldfs_event_notify(&d->guard_wake);
	ldfs_event_notify(&d->progress);
}

static bool all_gone(const ldfs_dump *d)
{
	return !load_seq(&d->threads_running) && !load_seq(&d->readers) &&
	       !ldfs_fault_inside(d->arena);
}

/* Threads and readers in I/O on the target end when that ends; a hanging target is not waited for. */
static int wait_all_gone(ldfs_dump *d)
{
	uint64_t deadline_ns = ldfs_deadline(RELEASE_PATIENCE_NS);

	while (!all_gone(d)) {
		if (ldfs_now_ns() >= deadline_ns)
			return -EINPROGRESS;
		wake_everybody(d);
		usleep(100);
	}
	return 0;
}

/*
 * START has linked the dump already, and finds the phase changed when it has armed: it disarms itself. To do that from here would
 * take the dump from memory that START is just about to protect, and a store there would be nobody's.
 */
static void wait_for_start(const ldfs_dump *d)
{
	while (load_seq(&d->arena->dump))
		usleep(100);
}

int ldfs_dump_release(ldfs_dump *d)
{
	if (ldfs_arena_foreign(d->arena))
		return 0;
	if (!exchange_seq(&d->release_begun, 1)) {
		uint32_t before = exchange_seq(&d->phase, LDFS_PHASE_RELEASED);

		/* An INIT that failed has written nothing: the stream may serve another. */
		if (d->target.stream && before != LDFS_PHASE_READY)
			ldfs_stream_cancel(d->target.stream);
		wake_everybody(d);
		if (before == LDFS_PHASE_READY)
			wait_for_start(d);
		else if (load_seq(&d->arena->dump))
			disarm(d);
		ldfs_huge_restore(d->arena);
		store_seq(&d->release_done, 1);
	}
	/* Somebody else's release may still be at work on the protection. */
	while (!load_seq(&d->release_done))
		usleep(100);
	return wait_all_gone(d);
}

int ldfs_dump_free(ldfs_dump *d)
{
	if (ldfs_arena_foreign(d->arena))
		return 0;
	/* Handlers and discards are never long inside; give_back waits for them. */
	if (ldfs_dump_phase(d) != LDFS_PHASE_RELEASED || !load_seq(&d->release_done) ||
	    load_seq(&d->threads_running) || load_seq(&d->readers))
		return -EBUSY;
	join_threads(d);
	return give_back(d);
}

/* ------------------------------------------------------------------- looking */

int ldfs_dump_phase(const ldfs_dump *d)
{
	return (int)load_seq(&d->phase);
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
		.left_out = load_relaxed(&d->left_out),
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
