/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * run.c - the threads of the vCPUs: each one runs guest code until the guest halts, crashes, or is
 * stopped.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "vcpu/vcpu.h"

/* Unicorn stops when it would fetch this address; no guest can have code there. */
#define NOWHERE UINT64_C(0x8000000000000000)

static void fail(struct ldfs_vcpu *v, int error)
{
	if (v->exception < 0)
		v->machine->kind->read(v, &v->crash);
	v->end.error = v->exception < 0 ? error : 0;
	v->end.exception = v->exception;
	v->end.pc = v->pc;
	store_seq(&v->state, LDFS_VCPU_FAILED);
}

/* Run guest code until it waits for something. False: it never runs again. Calls enter and leave.
 */
static bool run(struct ldfs_vcpu *v)
{
	const struct ldfs_uc_api *uc = &v->machine->uc;
	enum ldfs_vcpu_next next = LDFS_NEXT_AGAIN;
	int error = 0;

	if (!ldfs_vcpu_enter(v))
		return false;
	store_release(&v->state, LDFS_VCPU_RUNNING);
	ldfs_vcpu_attend(v);
	while (next == LDFS_NEXT_AGAIN && !(load_seq(&v->attention) & STOP)) {
		error = uc->emu_start(v->uc, v->pc, NOWHERE, 0, 0);
		uc->reg_read(v->uc, v->machine->kind->pc, &v->pc);
		if (error || !(load_seq(&v->attention) & STOP))
			next = v->machine->kind->returned(v, error);
	}
	v->end.pc = v->pc;
	if (next == LDFS_NEXT_FAIL)
		fail(v, error);
	else if (next == LDFS_NEXT_IDLE)
		store_release(&v->state, LDFS_VCPU_IDLE);
	else if (next == LDFS_NEXT_HALT)
		store_release(&v->state, LDFS_VCPU_HALTED);
	ldfs_vcpu_leave(v);
	return next == LDFS_NEXT_IDLE;
}

static void *vcpu_main(void *arg)
{
	struct ldfs_vcpu *v = arg;

	store_relaxed(&v->tid, gettid());
	store_seq(&v->begun, 1);
	ldfs_event_notify(&v->left);
	while (run(v))
		v->machine->kind->idle(v);
	if (load_relaxed(&v->state) < LDFS_VCPU_HALTED)
		store_release(&v->state, LDFS_VCPU_ENDED);
	store_seq(&v->ended, 1);
	ldfs_event_notify(&v->left);
	return NULL;
}

/* [owner] Wait until *flag, which the thread sets before it notifies `left`. False: too late. */
static bool wait_flag(struct ldfs_vcpu *v, _Atomic uint32_t *flag, uint64_t deadline_ns)
{
	while (!load_seq(flag)) {
		uint32_t seen = ldfs_event_prepare(&v->left);

		if (load_seq(flag)) {
			ldfs_event_cancel(&v->left);
			return true;
		}
		if (!ldfs_event_wait(&v->left, seen, deadline_ns))
			return load_seq(flag);
	}
	return true;
}

int ldfs_machine_start(ldfs_machine *m)
{
	if (m->started)
		return -EBUSY;
	m->started = true;
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		struct ldfs_vcpu *v = &m->vcpus[i];
		char name[16];
		int rc;

		snprintf(name, sizeof(name), "ldfs-vcpu%u", i % LDFS_MAX_VCPUS);
		store_release(&v->state, LDFS_VCPU_RUNNING);
		rc = ldfs_thread_start(&v->thread, vcpu_main, v, name);
		if (rc) {
			store_release(&v->state, LDFS_VCPU_NEW);
			return rc; /* ldfs_machine_stop() ends those that run */
		}
		v->has_thread = true;
		/*
		 * A new thread blocks all signals at first, and START refuses a process with such a
		 * thread.
		 */
		wait_flag(v, &v->begun, UINT64_MAX);
	}
	return 0;
}

int ldfs_machine_stop(ldfs_machine *m, uint64_t deadline_ns)
{
	int rc = 0;

	if (m->pid != getpid())
		return 0; /* a forked child does not have the threads */
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		atomic_fetch_or(&m->vcpus[i].attention, STOP);
		ldfs_event_notify(&m->vcpus[i].go);
	}
	for (uint32_t i = 0; i < m->vcpu_count; i++) {
		struct ldfs_vcpu *v = &m->vcpus[i];

		if (!v->has_thread)
			continue;
		if (!wait_flag(v, &v->ended, deadline_ns)) {
			rc = -ETIMEDOUT;
			continue;
		}
		pthread_join(v->thread, NULL);
		v->has_thread = false;
	}
	return rc;
}
