/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * track.c - increments: a dump to a pipe may leave out the granules that were not stored to since
 * an earlier one, a *base*. Of a base its granules' final states and checksums are kept, and what
 * has changed since its START (memory/changes.c).
 *
 * A granule that is left out takes the steps of one that the sweep saves, without the I/O between
 * them: piece.c. So the fault path knows nothing of this.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "life/life.h"

/* Bases that are kept: dumps may go to more than one store in turns. */
#define BASES_MOST 4

struct base {
	struct ldfs_changes changes; /* first: the list is of these */
	uint8_t id[16];
	uint32_t granules;
	uint8_t *state;
	uint64_t *checksum;
};

static struct base *base_of(struct ldfs_changes *c)
{
	return (struct base *)c;
}

static void free_base(struct base *b)
{
	if (!b)
		return;
	free(b->changes.changed);
	free(b->state);
	free(b->checksum);
	free(b);
}

/* Keep the newest `most`. */
static void keep_newest(ldfs_arena *a, unsigned most)
{
	struct ldfs_changes **end = &a->changes, *rest;

	pthread_mutex_lock(&a->changes_lock);
	for (unsigned i = 0; *end && i < most; i++)
		end = &(*end)->next;
	rest = *end;
	*end = NULL;
	pthread_mutex_unlock(&a->changes_lock);
	while (rest) {
		struct base *b = base_of(rest);

		rest = rest->next;
		free_base(b);
	}
}

void ldfs_track_forget(ldfs_arena *a)
{
	keep_newest(a, 0);
}

int ldfs_arena_bases(ldfs_arena *a, uint8_t *ids, uint32_t most)
{
	uint32_t count = 0;

	if (ldfs_arena_foreign(a))
		return -ECHILD;
	pthread_mutex_lock(&a->changes_lock);
	for (struct ldfs_changes *c = a->changes; c && count < most; c = c->next)
		memcpy(ids + 16 * count++, base_of(c)->id, 16);
	pthread_mutex_unlock(&a->changes_lock);
	return (int)count;
}

/* ------------------------------------------------------------------------ INIT */

static uint32_t possible(ldfs_arena *a, const ldfs_dump *d, const ldfs_dump_config *c)
{
	if (!c->track)
		return LDFS_TRACK_OFF;
	if (d->backend != LDFS_BACKEND_SIGSEGV)
		return LDFS_TRACK_BACKEND;
	if (d->arming != LDFS_ARM_SWAP)
		return LDFS_TRACK_ARMING;
	return ldfs_monitor_start(a, LDFS_UFFD_MARKS, -1) ? LDFS_TRACK_KERNEL : LDFS_TRACK_ON;
}

static uint32_t excluded(ldfs_arena *a)
{
	switch (ldfs_memory_alone(a)) {
	case 0:
		return LDFS_TRACK_ON;
	case -EBUSY:
		return LDFS_TRACK_SHARED;
	case -EPERM:
		return LDFS_TRACK_SEAL;
	}
	return LDFS_TRACK_UNKNOWN;
}

int ldfs_track_prepare(ldfs_dump *d, const ldfs_dump_config *c)
{
	ldfs_arena *a = d->arena;
	int rc = 0;

	d->tracking = possible(a, d, c);
	store_seq(&a->tracks, d->tracking == LDFS_TRACK_ON);
	if (d->arming == LDFS_ARM_SWAP)
		rc = ldfs_arena_prepare_shadow(a, d->backend);
	if (rc && load_seq(&a->tracks)) {
		/* The marks need page tables for holes, too. */
		d->tracking = LDFS_TRACK_MEMORY;
		store_seq(&a->tracks, 0);
		rc = ldfs_arena_prepare_shadow(a, d->backend);
	}
	if (!rc && load_seq(&a->tracks)) {
		d->tracking = excluded(a);
		store_seq(&a->tracks, d->tracking == LDFS_TRACK_ON);
	}
	if (!load_seq(&a->tracks))
		ldfs_track_forget(a); /* this dump's START would leave no trace for the next */
	return rc;
}

/* Asked again later: through what has been mapped since INIT, stores are not seen. */
static bool still_alone(ldfs_arena *a)
{
	if (!ldfs_memory_alone(a))
		return true;
	ldfs_track_forget(a);
	return false;
}

/* ----------------------------------------------------------------------- SWEEP */

static struct base *find(ldfs_arena *a, const uint8_t *id)
{
	struct ldfs_changes *c = a->changes;

	while (c && memcmp(base_of(c)->id, id, 16))
		c = c->next;
	return c ? base_of(c) : NULL;
}

/* What the base has of granule g, if it did not change since: SAVED or HOLE; else 0. */
static uint8_t same_as(const ldfs_dump *d, const struct base *b, uint32_t g)
{
	if (b->changes.changed[g] || (b->state[g] == LDFS_G_HOLE && !d->target.reads_zero))
		return 0;
	return b->state[g] == LDFS_G_SAVED || b->state[g] == LDFS_G_HOLE ? b->state[g] : 0;
}

static uint32_t compare(ldfs_dump *d, const struct base *b)
{
	if (!b)
		return LDFS_SINCE_UNKNOWN;
	if (b->changes.shift != d->granule_shift || b->granules != d->granules)
		return LDFS_SINCE_GRANULE;
	d->same = calloc(d->granules, sizeof(*d->same));
	d->same_sum = calloc(d->granules, sizeof(*d->same_sum));
	if (!d->same || !d->same_sum) {
		free(d->same);
		d->same = NULL;
		return LDFS_SINCE_MEMORY;
	}
	memcpy(d->same_sum, b->checksum, d->granules * sizeof(*d->same_sum));
	for (uint32_t g = 0; g < d->granules; g++)
		d->same[g] = same_as(d, b, g);
	return LDFS_SINCE_COUNTS;
}

void ldfs_track_leave_out(ldfs_dump *d)
{
	static const uint8_t none[16];

	if (!memcmp(d->wished, none, sizeof(none)))
		return;
	if (d->tracking != LDFS_TRACK_ON) {
		store_relaxed(&d->since, LDFS_SINCE_NOT_TRACKED);
		return;
	}
	if (!d->target.stream || d->pack.on) {
		store_relaxed(&d->since, LDFS_SINCE_TARGET);
		return;
	}
	ldfs_changes_look(d->arena);
	still_alone(d->arena); /* if not, there is no base any more */
	store_relaxed(&d->since, compare(d, find(d->arena, d->wished)));
}

/* --------------------------------------------------------------------- RELEASE */

/* Whether what the pipe's reader has of it can be a base: all of it. */
static bool is_whole(const ldfs_dump *d)
{
	return d->tracking == LDFS_TRACK_ON && d->target.stream && !d->pack.on &&
	       !load_seq(&d->remaining) && !load_relaxed(&d->lost) && !load_seq(&d->abandoned) &&
	       !load_seq(&d->not_durable) && !load_seq(&d->failure_taken);
}

static struct base *make_base(const ldfs_dump *d)
{
	struct base *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	memcpy(b->id, d->table.dump_id, sizeof(b->id));
	b->granules = d->granules;
	b->changes.shift = d->granule_shift;
	b->changes.changed = calloc(d->granules, 1);
	b->state = malloc(d->granules);
	b->checksum = malloc(d->granules * sizeof(*b->checksum));
	if (!b->changes.changed || !b->state || !b->checksum) {
		free_base(b);
		return NULL;
	}
	ldfs_dump_states(d, 0, d->granules, b->state);
	memcpy(b->checksum, d->checksum, d->granules * sizeof(*b->checksum));
	return b;
}

void ldfs_track_keep(ldfs_dump *d)
{
	ldfs_arena *a = d->arena;
	struct base *b;

	if (!is_whole(d) || !still_alone(a))
		return;
	/* What was stored to before this START is of no interest to this base. */
	ldfs_changes_look(a);
	b = make_base(d);
	if (!b)
		return;
	keep_newest(a, BASES_MOST - 1);
	pthread_mutex_lock(&a->changes_lock);
	b->changes.next = a->changes;
	a->changes = &b->changes;
	pthread_mutex_unlock(&a->changes_lock);
}
