/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * registers.c - the registers of a vCPU: set before it runs, read while it is held, captured at the
 * snapshot instant.
 */
#include <errno.h>
#include <string.h>

#include "vcpu/vcpu.h"

/* In the order of ldfs_registers; 0 where Unicorn has no such register. */
static const int register_ids[] = {
	LDFS_UC_X86_REG_R15, LDFS_UC_X86_REG_R14,     LDFS_UC_X86_REG_R13,     LDFS_UC_X86_REG_R12,
	LDFS_UC_X86_REG_RBP, LDFS_UC_X86_REG_RBX,     LDFS_UC_X86_REG_R11,     LDFS_UC_X86_REG_R10,
	LDFS_UC_X86_REG_R9,  LDFS_UC_X86_REG_R8,      LDFS_UC_X86_REG_RAX,     LDFS_UC_X86_REG_RCX,
	LDFS_UC_X86_REG_RDX, LDFS_UC_X86_REG_RSI,     LDFS_UC_X86_REG_RDI,     0,
	LDFS_UC_X86_REG_RIP, LDFS_UC_X86_REG_CS,      LDFS_UC_X86_REG_EFLAGS,  LDFS_UC_X86_REG_RSP,
	LDFS_UC_X86_REG_SS,  LDFS_UC_X86_REG_FS_BASE, LDFS_UC_X86_REG_GS_BASE, LDFS_UC_X86_REG_DS,
	LDFS_UC_X86_REG_ES,  LDFS_UC_X86_REG_FS,      LDFS_UC_X86_REG_GS,
};
#define REGISTERS (sizeof(register_ids) / sizeof(register_ids[0]))
_Static_assert(sizeof(ldfs_registers) == REGISTERS * sizeof(uint64_t), "one id for each register");

/* orig_rax is the number of an interrupted system call; -1 means none. */
#define NO_SYSTEM_CALL UINT64_MAX

void ldfs_vcpu_read(const struct ldfs_vcpu *v, ldfs_registers *out)
{
	/* Zeroed, because Unicorn writes only as many bytes as a register has. */
	uint64_t values[REGISTERS] = { 0 };

	for (size_t i = 0; i < REGISTERS; i++)
		if (register_ids[i])
			v->machine->uc.reg_read(v->uc, register_ids[i], &values[i]);
	memcpy(out, values, sizeof(*out));
	out->orig_rax = NO_SYSTEM_CALL;
}

/*
 * The registers of a vCPU that is held or does not run. After a crash these are the ones kept then:
 * Unicorn changes its own while it unwinds.
 */
void ldfs_vcpu_read_held(const struct ldfs_vcpu *v, ldfs_registers *out)
{
	if (load_acquire(&v->state) == LDFS_VCPU_FAILED)
		*out = v->crash;
	else
		ldfs_vcpu_read(v, out);
}

/* The segment registers stay as Unicorn's 64-bit mode set them. */
static bool may_write(int id)
{
	return id == LDFS_UC_X86_REG_EFLAGS || id == LDFS_UC_X86_REG_RIP ||
	       (id >= LDFS_UC_X86_REG_RAX && id <= LDFS_UC_X86_REG_RSP) ||
	       (id >= LDFS_UC_X86_REG_R8 && id <= LDFS_UC_X86_REG_R15);
}

int ldfs_machine_set_registers(ldfs_machine *m, uint32_t vcpu, const ldfs_registers *registers)
{
	uint64_t values[REGISTERS];

	if (vcpu >= m->vcpu_count)
		return -EINVAL;
	if (m->started)
		return -EBUSY;
	memcpy(values, registers, sizeof(values));
	for (size_t i = 0; i < REGISTERS; i++)
		if (may_write(register_ids[i]))
			m->uc.reg_write(m->vcpus[vcpu].uc, register_ids[i], &values[i]);
	m->vcpus[vcpu].pc = registers->rip;
	return 0;
}

int ldfs_machine_registers(ldfs_machine *m, uint32_t vcpu, ldfs_registers *out,
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

int ldfs_machine_snapshot(ldfs_machine *m, uint32_t vcpu, ldfs_registers *out)
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
