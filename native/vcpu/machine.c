/* SPDX-License-Identifier: GPL-2.0-or-later */
/* machine.c - a machine as a whole: making, looking at and destroying it. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vcpu/vcpu.h"

/* ---------------------------------------------------------------- for a dump */

static int op_quiesce(void *ctx, uint64_t deadline_ns)
{
	return ldfs_machine_quiesce(ctx, deadline_ns);
}

static void op_capture(void *ctx)
{
	ldfs_machine *m = ctx;

	pthread_mutex_lock(&m->snapshot_lock);
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		ldfs_vcpu_read_held(&m->vcpus[i], &m->vcpus[i].snapshot);
	m->has_snapshot = true;
	pthread_mutex_unlock(&m->snapshot_lock);
}

static void op_resume(void *ctx)
{
	ldfs_machine_resume(ctx);
}

ldfs_quiesce_ops *ldfs_machine_ops(ldfs_machine *m)
{
	return &m->ops;
}

/* ------------------------------------------------------------------- looking */

uint64_t ldfs_machine_console(ldfs_machine *m, uint8_t *buf, uint64_t size, uint64_t *end)
{
	return ldfs_console_read(&m->console, buf, size, end);
}

int ldfs_machine_status(ldfs_machine *m, uint32_t vcpu, ldfs_vcpu_status *out)
{
	struct ldfs_vcpu *v = &m->vcpus[vcpu];
	uint32_t state;

	if (vcpu >= m->vcpu_count)
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	out->exception = -1;
	state = load_acquire(&v->state);
	if (state == LDFS_VCPU_HALTED || state == LDFS_VCPU_FAILED)
		*out = v->end;
	out->state = state;
	out->parked = HOLDS(load_seq(&v->attention)) && !load_seq(&v->inside);
	return 0;
}

const char *ldfs_machine_error_text(const ldfs_machine *m, int error)
{
	return m->uc.strerror(error);
}

/* ---------------------------------------------------------------- making one */

static bool ranges_valid(const ldfs_ram_range *ranges, uint32_t count)
{
	const uint64_t in_page = LDFS_PAGE_SIZE - 1;

	for (uint32_t i = 0; i < count; i++) {
		const ldfs_ram_range *r = &ranges[i];

		if (r->size == 0 || ((r->start | r->size | r->ram_offset) & in_page) ||
		    r->start + r->size < r->start)
			return false;
		if (i && r->start < ranges[i - 1].start + ranges[i - 1].size)
			return false;
	}
	return count > 0;
}

/* [owner] Number of pages of the arena, up to the end of the last range. */
static uint64_t page_count(const ldfs_machine *m)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < m->range_count; i++)
		if (end < m->ranges[i].ram_offset + m->ranges[i].size)
			end = m->ranges[i].ram_offset + m->ranges[i].size;
	return end / LDFS_PAGE_SIZE;
}

static int init_vcpu(ldfs_machine *m, uint32_t index)
{
	struct ldfs_vcpu *v = &m->vcpus[index];

	v->machine = m;
	v->index = index;
	v->exception = -1;
	v->end.exception = -1;
	v->code_pages = calloc(page_count(m) / 64 + 1, sizeof(*v->code_pages));
	return v->code_pages ? 0 : -ENOMEM;
}

static int build(ldfs_machine *m, const char *library, char *why, size_t why_size)
{
	int rc = ldfs_unicorn_load(library, &m->uc, why, why_size);

	for (uint32_t i = 0; i < m->vcpu_count && !rc; i++) {
		int error;

		rc = init_vcpu(m, i);
		if (rc)
			break;
		error = ldfs_vcpu_open(&m->vcpus[i]);
		if (error) {
			snprintf(why, why_size, "%s", m->uc.strerror(error));
			rc = error == LDFS_UC_ERR_NOMEM ? -ENOMEM : -EIO;
		}
	}
	return rc;
}

int ldfs_machine_create(const char *library, void *ram, const ldfs_ram_range *ranges,
			uint32_t range_count, uint32_t vcpus, ldfs_machine **out, char *why,
			size_t why_size)
{
	return ldfs_machine_make(&ldfs_vcpu_flat, NULL, library, ram, ranges, range_count, vcpus,
				 out, why, why_size);
}

int ldfs_machine_make(const struct ldfs_vcpu_kind *kind, void *owner, const char *library,
		      void *ram, const ldfs_ram_range *ranges, uint32_t range_count, uint32_t vcpus,
		      ldfs_machine **out, char *why, size_t why_size)
{
	ldfs_machine *m;
	int rc;

	snprintf(why, why_size, "%s", "");
	if (vcpus < 1 || vcpus > LDFS_MAX_VCPUS || !ranges_valid(ranges, range_count))
		return -EINVAL;
	/* struct ldfs_vcpu has members that are aligned to cache lines. */
	m = aligned_alloc(CACHE_LINE, sizeof(*m));
	if (!m)
		return -ENOMEM;
	memset(m, 0, sizeof(*m));
	m->kind = kind;
	m->owner = owner;
	m->ram = ram;
	m->pid = getpid();
	m->vcpu_count = vcpus;
	m->range_count = range_count;
	m->ops = (ldfs_quiesce_ops){ op_quiesce, op_capture, op_resume, m, 1 };
	pthread_mutex_init(&m->snapshot_lock, NULL);
	ldfs_console_open(&m->console);
	m->ranges = calloc(range_count, sizeof(*ranges));
	if (!m->ranges) {
		ldfs_machine_destroy(m);
		return -ENOMEM;
	}
	memcpy(m->ranges, ranges, range_count * sizeof(*ranges));
	rc = build(m, library, why, why_size);
	if (rc) {
		ldfs_machine_destroy(m);
		return rc;
	}
	*out = m;
	return 0;
}

int ldfs_machine_destroy(ldfs_machine *m)
{
	if (m->pid != getpid())
		return 0;
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		if (m->vcpus[i].has_thread)
			return -EBUSY;
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		if (m->vcpus[i].uc)
			m->uc.close(m->vcpus[i].uc);
		free(m->vcpus[i].code_pages);
	}
	ldfs_console_close(&m->console);
	pthread_mutex_destroy(&m->snapshot_lock);
	free(m->ranges);
	free(m);
	return 0;
}
