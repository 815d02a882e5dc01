/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * registers.c - the registers of a vCPU: read while it is held, captured at the snapshot instant.
 */
#include <errno.h>

#include "vcpu/vcpu.h"

/*
 * The registers of a vCPU that is held or does not run. After a crash these are the ones kept then:
 * Unicorn changes its own while it unwinds.
 */
void ldfs_vcpu_read_held(const struct ldfs_vcpu *v, ldfs_any_registers *out)
{
	if (load_acquire(&v->state) == LDFS_VCPU_FAILED)
		*out = v->crash;
	else
		v->machine->kind->read(v, out);
}

int ldfs_machine_registers(ldfs_machine *m, uint32_t vcpu, ldfs_any_registers *out,
			   uint64_t deadline_ns)
{
	unsigned turns = 0;
	int rc = 0;

	if (vcpu >= m->vcpu_count)
		return -EINVAL;
	ldfs_vcpu_hold(&m->vcpus[vcpu]);
	ldfs_vcpu_hurry(&m->vcpus[vcpu], &turns);
	if (ldfs_vcpu_wait_outside(&m->vcpus[vcpu], deadline_ns)) {
		ldfs_vcpu_read_held(&m->vcpus[vcpu], out);
	} else {
		ldfs_vcpu_lower(&m->vcpus[vcpu]);
		rc = -ETIMEDOUT;
	}
	ldfs_vcpu_let_go(&m->vcpus[vcpu]);
	return rc;
}

int ldfs_machine_snapshot(ldfs_machine *m, uint32_t vcpu, ldfs_any_registers *out)
{
	int rc = -ENODATA;

	if (vcpu >= m->vcpu_count)
		return -EINVAL;
	pthread_mutex_lock(&m->snapshot_lock);
	if (m->has_snapshot) {
		*out = m->vcpus[vcpu].snapshot;
		rc = 0;
	}
	pthread_mutex_unlock(&m->snapshot_lock);
	return rc;
}
