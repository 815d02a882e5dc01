/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * packer.c - the threads of a packed target: each one packs filled slots first, then a piece of the
 * sweep.
 *
 * No other thread changes the bytes in a slot while its granule is IN_SLOT. The sweep packs a
 * private copy of the memory: when a granule is stolen, the machine may change the memory during
 * the copy, and ldfs_step_sweep_over then rejects what was made of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "saving/within.h"

/* A slot that is packed, but not yet written. */
struct job {
	uint32_t slot;
	uint32_t granule;
	uint64_t within; /* offset in the packer's `out` */
	uint64_t checksum;
};

/* A packed granule of the sweep's run. */
struct result {
	uint8_t state; /* the state that the granule gets, unless it was stolen */
	uint64_t within;
	uint64_t checksum;
};

struct ldfs_packer {
	ldfs_dump *d;
	pthread_t thread;
	struct codec *codec;
	struct ldfs_batch batch;
	uint8_t *copy; /* copy of the bytes of a run, or of one granule */
	uint8_t *out;  /* packed bytes; packing never makes them longer */
	uint64_t room; /* size of `copy`, and of `out` */
	uint64_t used; /* bytes used in `out` */
	uint32_t jobs_count;
	struct job jobs[LDFS_RUN_MOST];
	struct result results[LDFS_RUN_MOST];
};

/* ------------------------------------------------------------------- slots */

static void finish_job(struct ldfs_packer *p, const struct job *job, uint64_t at, int rc)
{
	ldfs_dump *d = p->d;

	if (rc && ldfs_cut_off(d))
		return;
	if (rc) {
		ldfs_step_slot_lost(d, job->granule);
	} else {
		d->pack.where[job->granule] = at + job->within;
		ldfs_step_saved(d, job->granule, job->checksum);
	}
	ldfs_ring_freed(&d->ring, job->slot);
}

/* Write the packed slots and bring their granules to the final state. */
static void write_jobs(struct ldfs_packer *p)
{
	ldfs_dump *d = p->d;
	uint64_t at = 0;
	int rc = load_seq(&d->abandoned) ? -ECANCELED : ldfs_pack_append(d, p->out, p->used, &at);

	if (rc && rc != -ECANCELED)
		ldfs_target_failed(d, rc,
				   ldfs_granule_start(d, p->jobs[0].granule) / LDFS_PAGE_SIZE);
	if (!rc)
		add_relaxed(&d->bytes_pool, p->used);
	for (uint32_t i = 0; i < p->jobs_count; i++)
		finish_job(p, &p->jobs[i], at, rc);
	p->used = p->jobs_count = 0;
}

static void pack_slot(struct ldfs_packer *p, uint32_t slot)
{
	ldfs_dump *d = p->d;
	uint32_t g = d->ring.slots[slot].granule;
	uint64_t length = ldfs_granule_length(d, g);
	const uint8_t *bytes = ldfs_slot_bytes(&d->ring, slot);

	if (p->jobs_count == LDFS_RUN_MOST || p->room - p->used < length)
		write_jobs(p);
	p->jobs[p->jobs_count++] = (struct job){
		.slot = slot,
		.granule = g,
		.within = p->used,
		.checksum = ldfs_checksum(bytes, length),
	};
	p->used += ldfs_pack_granule(d, p->codec, g, bytes, p->out + p->used);
}

/* False: there was no slot that may be written. */
static bool pack_slots(struct ldfs_packer *p)
{
	uint32_t kept = 0;
	bool any = false;

	ldfs_batch_take(&p->batch, p->d);
	ldfs_batch_share(&p->batch, p->d, p->d->packer_count, ldfs_sweep_run_most(p->d));
	for (uint32_t i = 0; i < p->batch.count; i++) {
		if (!ldfs_released(p->d) && ldfs_batch_writable(&p->batch, p->d, i)) {
			pack_slot(p, p->batch.slots[i]);
			any = true;
		} else {
			p->batch.slots[kept++] = p->batch.slots[i];
		}
	}
	if (p->jobs_count)
		write_jobs(p);
	p->batch.count = kept;
	return any;
}

/* --------------------------------------------------------------------- sweep */

static uint64_t run_length(const ldfs_dump *d, uint32_t first, uint32_t end)
{
	return ldfs_granule_start(d, end - 1) + ldfs_granule_length(d, end - 1) -
	       ldfs_granule_start(d, first);
}

static bool all_full(const ldfs_dump *d, uint32_t first, uint32_t end)
{
	for (uint32_t g = first; g < end; g++)
		if (!ldfs_granule_full(d, g))
			return false;
	return true;
}

/* 1: copied; 0: only holes; -errno. Holes are read through pread, which does not allocate them. */
static int copy_run(struct ldfs_packer *p, uint32_t first, uint32_t end)
{
	ldfs_dump *d = p->d;
	uint64_t start = ldfs_granule_start(d, first), length = run_length(d, first, end);
	uint64_t data, data_end;
	int error = 0, rc;

	if (all_full(d, first, end)) {
		memcpy(p->copy, d->arena->observer + start, length);
		return 1;
	}
	if (!ldfs_arena_next_data(d->arena, start, start + length, &data, &data_end, &error))
		return error;
	rc = ldfs_read_all(d->arena->memfd, p->copy, length, start);
	return rc ? rc : 1;
}

/*
 * A granule that has been stolen need not be packed. This look only saves time:
 * ldfs_step_sweep_over decides.
 */
static void pack_copied(struct ldfs_packer *p, uint32_t first, uint32_t g)
{
	ldfs_dump *d = p->d;
	struct result *r = &p->results[g - first];
	const uint8_t *bytes = p->copy + (ldfs_granule_start(d, g) - ldfs_granule_start(d, first));
	uint64_t used;

	*r = (struct result){ .state = LDFS_G_SAVED, .within = p->used };
	if (ldfs_state(d, g) != LDFS_G_SWEEPING)
		return;
	used = ldfs_pack_granule(d, p->codec, g, bytes, p->out + p->used);
	p->used += used;
	if (used)
		r->checksum = ldfs_checksum(bytes, ldfs_granule_length(d, g));
	else
		r->state = LDFS_G_HOLE;
}

static void pack_copy(struct ldfs_packer *p, uint32_t first, uint32_t end, bool holes)
{
	for (uint32_t g = first; g < end; g++) {
		if (holes)
			p->results[g - first] = (struct result){ .state = LDFS_G_HOLE };
		else
			pack_copied(p, first, g);
	}
}

/* Bring the claimed granules [first, end) to the states that the sweep leads to. */
static void end_run(struct ldfs_packer *p, uint32_t first, uint32_t end, uint64_t at, bool good)
{
	ldfs_dump *d = p->d;
	uint8_t states[LDFS_RUN_MOST];

	if (!good && ldfs_cut_off(d))
		return;
	for (uint32_t g = first; g < end; g++) {
		const struct result *r = &p->results[g - first];

		/* Until ldfs_step_sweep_over only the sweep writes this, and the sizes. */
		d->pack.where[g] = at + r->within;
		states[g - first] = ldfs_step_sweep_over(d, g, good ? r->state : LDFS_G_LOST,
							 r->checksum);
	}
	ldfs_sweep_opened(d, states, first, end);
}

static void pack_run(struct ldfs_packer *p, uint32_t first, uint32_t end)
{
	ldfs_dump *d = p->d;
	uint64_t at = 0;
	int rc = load_seq(&d->abandoned) ? -ECANCELED : copy_run(p, first, end);

	p->used = 0;
	if (rc >= 0) {
		pack_copy(p, first, end, rc == 0);
		rc = ldfs_pack_append(d, p->out, p->used, &at);
		if (rc)
			ldfs_sweep_failed(d, first, end, rc);
		else
			add_relaxed(&d->swept, p->used);
	} else if (rc != -ECANCELED) {
		ldfs_fail(d, LDFS_OP_READ_ARENA, -rc,
			  ldfs_granule_start(d, first) / LDFS_PAGE_SIZE);
	}
	end_run(p, first, end, at, rc == 0);
	p->used = 0;
}

/*
 * Sweep the next piece of the arena; its armed granules belong to this thread. False: none is left,
 * or the rate does not allow one now.
 */
static bool sweep_piece(struct ldfs_packer *p)
{
	ldfs_dump *d = p->d;
	uint32_t begin, first, limit, end;

	if (!ldfs_sweep_begun(d) || ldfs_now_ns() < ldfs_sweep_due_ns(d) ||
	    !ldfs_sweep_next(d, &begin, &limit))
		return false;
	for (first = begin; !ldfs_released(d) && ldfs_sweep_claim(d, &first, &end, limit);
	     first = end)
		pack_run(p, first, end);
	ldfs_sweep_close(d, begin, limit);
	return true;
}

/* ------------------------------------------------------------------ the thread */

static uint64_t wake_at(const ldfs_dump *d)
{
	uint64_t tick = ldfs_deadline(LDFS_TICK_NS), due = ldfs_sweep_due_ns(d),
		 now = ldfs_now_ns();

	return due > now && due < tick ? due : tick;
}

static void *packer_main(void *packer)
{
	struct ldfs_packer *p = packer;
	ldfs_dump *d = p->d;

	while (!ldfs_released(d)) {
		bool any = pack_slots(p);

		any |= sweep_piece(p);
		ldfs_table_tick(d);
		if (!any)
			ldfs_batch_wait(&p->batch, d, wake_at(d));
	}
	ldfs_threads_ended(d);
	return NULL;
}

static int init_packer(struct ldfs_packer *p, ldfs_dump *d)
{
	uint64_t granule = 1ULL << d->granule_shift;

	p->d = d;
	p->room = granule > LDFS_RUN_BYTES ? granule : LDFS_RUN_BYTES;
	p->codec = ldfs_codec_open(d->pack.codec, d->pack.level);
	p->copy = ldfs_buffer_make(p->room);
	p->out = ldfs_buffer_make(p->room);
	if (!p->codec || !p->copy || !p->out)
		return -ENOMEM;
	return ldfs_batch_init(&p->batch, &d->ring);
}

int ldfs_packers_init(ldfs_dump *d, uint32_t count)
{
	int rc = 0;

	if (!d->pack.on)
		return 0;
	if (count == 0 || count > LDFS_MAX_PACKERS)
		return -EINVAL;
	d->packers = calloc(count, sizeof(*d->packers));
	if (!d->packers)
		return -ENOMEM;
	for (d->packer_count = 0; !rc && d->packer_count < count; d->packer_count++)
		rc = init_packer(&d->packers[d->packer_count], d);
	return rc;
}

void ldfs_packers_destroy(ldfs_dump *d)
{
	for (uint32_t i = 0; i < d->packer_count; i++) {
		ldfs_codec_close(d->packers[i].codec);
		ldfs_buffer_free(d->packers[i].copy, d->packers[i].room);
		ldfs_buffer_free(d->packers[i].out, d->packers[i].room);
		free(d->packers[i].batch.slots);
	}
	free(d->packers);
}

int ldfs_packers_start(ldfs_dump *d)
{
	int rc = 0;

	for (; !rc && d->packers_made < d->packer_count; d->packers_made += rc == 0) {
		struct ldfs_packer *p = &d->packers[d->packers_made];

		rc = ldfs_threads_start(d, &p->thread, packer_main, p, "ldfs-packer");
	}
	return rc;
}

void ldfs_packers_join(ldfs_dump *d)
{
	for (uint32_t i = 0; i < d->packers_made; i++)
		pthread_join(d->packers[i].thread, NULL);
}
