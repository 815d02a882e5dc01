/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * piece.c - the sweep of one piece of the arena, by the sweep thread or by a helper.
 *
 * It writes runs of granules directly from the observer view, without a copy, where there is one;
 * huge pages (hugetlbfs) are read through the memfd, a granule at a time. It looks for holes
 * after it has claimed the granules: a hole may become data before the claim, but not after it.
 * Granules of zeros count as holes too. What reading the memory gave (the checksum, or that all is
 * zero) counts only if the granule has not been stolen meanwhile; ldfs_step_sweep_over decides
 * that.
 */
#include <errno.h>

#include "saving/within.h"

/* Granules that were claimed together, and what was found out about each. */
struct run {
	uint32_t first, end;
	uint8_t *scratch;              /* room for a granule */
	uint32_t judged;               /* the first granule that was not looked at */
	bool cut_off;                  /* by RELEASE: its granules stay as they are */
	uint8_t result[LDFS_RUN_MOST]; /* SAVED, HOLE or LOST */
	uint64_t checksum[LDFS_RUN_MOST];
};

/* ---------------------------------------------------------------- what it is */

static void note(struct run *r, uint32_t g, uint8_t result, uint64_t checksum)
{
	r->result[g - r->first] = result;
	r->checksum[g - r->first] = checksum;
	if (r->judged <= g)
		r->judged = g + 1;
}

static void unreadable(ldfs_dump *d, struct run *r, uint32_t g, int rc)
{
	ldfs_fail(d, LDFS_OP_READ_ARENA, -rc, ldfs_granule_start(d, g) / LDFS_PAGE_SIZE);
	note(r, g, LDFS_G_LOST, 0);
}

/* What a granule without holes is: HOLE if it is all zeros, else SAVED. */
static uint8_t judge(ldfs_dump *d, struct run *r, uint32_t g)
{
	const uint8_t *bytes = d->arena->observer + ldfs_granule_start(d, g);
	uint64_t length = ldfs_granule_length(d, g);

	if (r->judged > g)
		return r->result[g - r->first];
	if (ldfs_all_zero(bytes, length))
		note(r, g, LDFS_G_HOLE, 0);
	else
		note(r, g, LDFS_G_SAVED, ldfs_checksum(bytes, length));
	return r->result[g - r->first];
}

/*
 * The same for a granule that may have holes, after it was written: HOLE if it has no data, LOST if
 * it cannot be read. Holes are read through pread, which does not allocate them.
 */
static void judge_holed(ldfs_dump *d, struct run *r, uint32_t g)
{
	const ldfs_arena *a = d->arena;
	uint64_t start = ldfs_granule_start(d, g), length = ldfs_granule_length(d, g);
	uint64_t data, data_end;
	int rc = 0;

	if (!ldfs_arena_next_data(a, start, start + length, &data, &data_end, &rc) && !rc) {
		note(r, g, LDFS_G_HOLE, 0);
		return;
	}
	if (!rc)
		rc = ldfs_read_all(a->memfd, r->scratch, length, start);
	if (rc)
		unreadable(d, r, g, rc);
	else
		note(r, g, LDFS_G_SAVED, ldfs_checksum(r->scratch, length));
}

/* ------------------------------------------------------------- one run's I/O */

static int write_data(ldfs_dump *d, uint64_t start, uint64_t end, const uint8_t *bytes)
{
	int rc = ldfs_target_write(&d->target, start, bytes, end - start, true);

	if (rc)
		return rc;
	add_relaxed(&d->swept, end - start);
	return 0;
}

static int write_hole(ldfs_dump *d, uint64_t start, uint64_t end)
{
	uint64_t written = 0;
	int rc;

	if (d->target.reads_zero || start == end)
		return 0;
	rc = ldfs_target_zero(&d->target, start, end - start, &written);
	add_relaxed(&d->swept, written);
	return rc;
}

/* Write the data and the holes of the bytes [start, end) to the target. */
static int write_with_holes(ldfs_dump *d, uint64_t start, uint64_t end)
{
	uint64_t at = start, data, data_end;
	int rc = 0, error = 0;

	while (!rc && ldfs_arena_next_data(d->arena, at, end, &data, &data_end, &error)) {
		rc = write_hole(d, at, data);
		if (!rc)
			rc = write_data(d, data, data_end, d->arena->observer + data);
		at = data_end;
	}
	if (error)
		return error;
	return rc ? rc : write_hole(d, at, end);
}

/*
 * Whether a granule that is not full is read, judged and written from one copy: without an observer
 * view (huge pages), where none counts as full, so that runs consist of single granules; and into a
 * pipe, whose records have whole granules.
 */
static bool copied(const ldfs_dump *d, bool full)
{
	return !d->arena->observer || (d->target.stream && !full);
}

static int save_copied(ldfs_dump *d, struct run *r, uint32_t g)
{
	uint64_t start = ldfs_granule_start(d, g), length = ldfs_granule_length(d, g);
	int rc = ldfs_read_all(d->arena->memfd, r->scratch, length, start);

	if (rc) {
		unreadable(d, r, g, rc);
		return 0; /* the target is good */
	}
	if (ldfs_all_zero(r->scratch, length)) {
		note(r, g, LDFS_G_HOLE, 0);
		return write_hole(d, start, start + length);
	}
	note(r, g, LDFS_G_SAVED, ldfs_checksum(r->scratch, length));
	return write_data(d, start, start + length, r->scratch);
}

/* Whether the base has its bytes: it is neither read nor written. */
static bool is_same(const ldfs_dump *d, uint32_t g)
{
	return d->same && d->same[g];
}

static uint64_t end_of(const ldfs_dump *d, uint32_t g)
{
	return ldfs_granule_start(d, g) + ldfs_granule_length(d, g);
}

/* Granules [g, returned) are all full and of one kind: one call writes them. */
static uint32_t stretch_end(ldfs_dump *d, struct run *r, uint32_t g)
{
	uint8_t kind = judge(d, r, g);

	do {
		g++;
	} while (g < r->end && !is_same(d, g) && ldfs_granule_full(d, g) && judge(d, r, g) == kind);
	return g;
}

static int write_stretch(ldfs_dump *d, struct run *r, uint32_t first, uint32_t end, bool full)
{
	uint64_t start = ldfs_granule_start(d, first), stop = end_of(d, end - 1);

	if (load_seq(&d->abandoned))
		return -ECANCELED;
	if (copied(d, full))
		return save_copied(d, r, first);
	if (!full)
		return write_with_holes(d, start, stop);
	if (r->result[first - r->first] == LDFS_G_HOLE)
		return write_hole(d, start, stop);
	return write_data(d, start, stop, d->arena->observer + start);
}

static void save_stretch(ldfs_dump *d, struct run *r, uint32_t first, uint32_t end, bool full)
{
	int rc = write_stretch(d, r, first, end, full);

	if (rc && ldfs_cut_off(d)) {
		r->cut_off = true;
		return;
	}
	/*
	 * Each by itself: most may be good. One stolen granule is enough for some devices to refuse
	 * the write of many: its bytes changed under way, and no longer fit the sum that was made
	 * of them (EILSEQ).
	 */
	if (rc && rc != -ECANCELED && end - first > 1) {
		for (uint32_t g = first; g < end; g++)
			save_stretch(d, r, g, g + 1, full);
		return;
	}
	if (rc) {
		ldfs_sweep_failed(d, first, end, rc);
		for (uint32_t g = first; g < end; g++)
			note(r, g, LDFS_G_LOST, 0);
	} else if (!full && !copied(d, full)) {
		judge_holed(d, r, first);
	}
}

static void save_run(ldfs_dump *d, struct run *r)
{
	uint32_t g = r->first, end;

	for (; g < r->end && !r->cut_off; g = end) {
		/* Asked once: at any moment a discard may save the granule and punch it. */
		bool full = ldfs_granule_full(d, g);

		if (is_same(d, g)) {
			note(r, g, d->same[g], d->same_sum[g]);
			end = g + 1;
			continue;
		}
		end = full ? stretch_end(d, r, g) : g + 1;
		save_stretch(d, r, g, end, full);
	}
}

/* --------------------------------------------------------------- end of a run */

/* Make [first, end) writable, except for granules that a handler is still copying. */
static void unprotect_published(ldfs_dump *d, const uint8_t *states, uint32_t first, uint32_t end)
{
	uint32_t begin = first;

	for (uint32_t g = first; g <= end; g++) {
		if (g < end && states[g - first] != LDFS_G_CLAIMED)
			continue;
		/* ENOMEM loses nothing: the fault path or the drain's end will do it. */
		if (g > begin)
			ldfs_protect_open(d, begin, g - 1);
		begin = g + 1;
	}
}

void ldfs_sweep_opened(ldfs_dump *d, const uint8_t *states, uint32_t first, uint32_t end)
{
	unprotect_published(d, states, first, end);
	ldfs_ring_need_none(&d->ring, first, end); /* vCPUs that waited for a slot: it is saved */
	ldfs_event_notify(&d->ring.arrived); /* the writer may have stolen granules put aside */
}

static void end_run(ldfs_dump *d, const struct run *r)
{
	uint8_t states[LDFS_RUN_MOST];

	for (uint32_t g = r->first; g < r->end; g++) {
		states[g - r->first] = ldfs_step_sweep_over(d, g, r->result[g - r->first],
							    r->checksum[g - r->first]);
		if (is_same(d, g) && ldfs_state_final(states[g - r->first]))
			add_relaxed(&d->omitted, 1);
	}
	ldfs_sweep_opened(d, states, r->first, r->end);
}

/*
 * No bytes of this I/O are needed, so its error does not count: slots have them, or they are lost.
 */
static bool none_wanted(const ldfs_dump *d, uint32_t first, uint32_t end)
{
	for (uint32_t g = first; g < end; g++) {
		uint8_t s = ldfs_state(d, g);

		if (s != LDFS_G_STEALING && s != LDFS_G_STOLEN && s != LDFS_G_LOST)
			return false;
	}
	return true;
}

void ldfs_sweep_failed(ldfs_dump *d, uint32_t first, uint32_t end, int rc)
{
	if (rc != -ECANCELED && !none_wanted(d, first, end))
		ldfs_target_failed(d, rc, ldfs_granule_start(d, first) / LDFS_PAGE_SIZE);
}

/* ------------------------------------------------------------------ the piece */

static void sweep_run(ldfs_dump *d, uint32_t first, uint32_t end, uint8_t *scratch)
{
	struct run r = { .first = first, .end = end, .judged = first, .scratch = scratch };

	save_run(d, &r);
	if (!r.cut_off)
		end_run(d, &r);
}

bool ldfs_sweep_piece(ldfs_dump *d, uint8_t *scratch)
{
	uint32_t begin, first, end, limit;
	struct ldfs_spent spent;

	if (ldfs_released(d) || !ldfs_sweep_next(d, &begin, &limit))
		return false;
	ldfs_effort_begin(d, &spent);
	for (first = begin; !ldfs_released(d) && ldfs_sweep_claim(d, &first, &end, limit);
	     first = end)
		sweep_run(d, first, end, scratch);
	ldfs_sweep_close(d, begin, limit);
	ldfs_effort_end(d, &spent);
	return true;
}
