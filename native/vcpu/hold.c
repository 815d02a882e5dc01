/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hold.c - holding one vCPU, and all of them. vcpu.h describes the protocol. */
#include <errno.h>

#include "base/relax.h"
#include "vcpu/vcpu.h"

#define HURRY_TURNS 500u /* of relax(): some ten microseconds, for all vCPUs together */

/*
 * [vCPU] No guest code runs from here on; a thread that holds this vCPU sees all that it wrote
 * before.
 */
void ldfs_vcpu_leave(struct ldfs_vcpu *v)
{
	store_seq(&v->inside, 0);
	ldfs_event_notify(&v->left);
}

/* [vCPU] Sleep until `attention` is no longer `seen_attention`, or until the deadline. */
void ldfs_vcpu_wait_for_change(struct ldfs_vcpu *v, uint32_t seen_attention, uint64_t deadline_ns)
{
	uint32_t seen = ldfs_event_prepare(&v->go);

	if (load_seq(&v->attention) != seen_attention)
		ldfs_event_cancel(&v->go);
	else
		ldfs_event_wait(&v->go, seen, deadline_ns);
}

/* [any thread] End the raised priority: the vCPU goes on, or did not park in time. */
void ldfs_vcpu_lower(struct ldfs_vcpu *v)
{
	if (exchange_seq(&v->urgent, 0))
		ldfs_urgent_lower(load_relaxed(&v->tid));
}

/* [vCPU] Wait until no thread holds this vCPU, then be inside. False: STOP, and outside. */
bool ldfs_vcpu_enter(struct ldfs_vcpu *v)
{
	for (;;) {
		uint32_t attention = load_seq(&v->attention);

		if (attention & STOP)
			return false;
		if (HOLDS(attention)) {
			ldfs_vcpu_wait_for_change(v, attention, UINT64_MAX);
			continue;
		}
		if (load_relaxed(&v->urgent))
			ldfs_vcpu_lower(v);
		store_seq(&v->inside, 1);
		if (!(load_seq(&v->attention) & ~WORK))
			return true;
		ldfs_vcpu_leave(v);
	}
}

/* [any thread] Wait until the vCPU is outside guest code; the caller has raised `attention`. */
bool ldfs_vcpu_wait_outside(struct ldfs_vcpu *v, uint64_t deadline_ns)
{
	while (load_seq(&v->inside)) {
		uint32_t seen = ldfs_event_prepare(&v->left);

		if (!load_seq(&v->inside)) {
			ldfs_event_cancel(&v->left);
			return true;
		}
		if (!ldfs_event_wait(&v->left, seen, deadline_ns))
			return !load_seq(&v->inside);
	}
	return true;
}

/*
 * [any thread] Help a vCPU to park after `attention` was raised. A vCPU that runs parks within
 * microseconds; one that does not may be waiting for a processor, so its thread's priority is
 * raised. It cannot go on, and so lower the priority itself, before it is let go.
 */
void ldfs_vcpu_hurry(struct ldfs_vcpu *v, unsigned *turns)
{
	while (*turns < HURRY_TURNS && load_seq(&v->inside)) {
		relax();
		++*turns;
	}
	if (load_seq(&v->inside) && ldfs_urgent_raise(load_relaxed(&v->tid)))
		store_seq(&v->urgent, 1);
}

void ldfs_vcpu_set_work(struct ldfs_vcpu *v)
{
	atomic_fetch_or(&v->attention, WORK);
	ldfs_event_notify(&v->go);
}

void ldfs_vcpu_attend(struct ldfs_vcpu *v)
{
	if (atomic_fetch_and(&v->attention, ~WORK) & WORK)
		v->machine->kind->attend(v);
}

void ldfs_vcpu_hold(struct ldfs_vcpu *v)
{
	add_seq(&v->attention, 1);
}

void ldfs_vcpu_let_go(struct ldfs_vcpu *v)
{
	sub_seq(&v->attention, 1);
	ldfs_event_notify(&v->go);
}

/* --------------------------------------------------------------- all of them */

int ldfs_machine_quiesce(ldfs_machine *m, uint64_t deadline_ns)
{
	unsigned turns = 0;

	/* All are asked before the first is waited for, so that they park at the same time. */
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		ldfs_vcpu_hold(&m->vcpus[i]);
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		ldfs_vcpu_hurry(&m->vcpus[i], &turns);
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		if (ldfs_vcpu_wait_outside(&m->vcpus[i], deadline_ns))
			continue;
		for (uint32_t j = 0; j < m->vcpu_count; j++) {
			ldfs_vcpu_lower(&m->vcpus[j]);
			ldfs_vcpu_let_go(&m->vcpus[j]);
		}
		return -ETIMEDOUT;
	}
	add_seq(&m->paused, 1);
	return 0;
}

int ldfs_machine_resume(ldfs_machine *m)
{
	uint32_t paused = load_seq(&m->paused);

	do {
		if (paused == 0)
			return -EINVAL;
	} while (!cas_seq(&m->paused, &paused, paused - 1));
	for (uint32_t i = 0; i < m->vcpu_count; i++)
		ldfs_vcpu_let_go(&m->vcpus[i]);
	return 0;
}
