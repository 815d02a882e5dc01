/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lines.c - the hart's registers one by one, and its lines of pending interrupts. */
#include "board/within.h"

uint64_t ldfs_hart_get(struct ldfs_board *b, int reg)
{
	uint64_t value = 0;

	b->machine->uc.reg_read(b->hart->uc, reg, &value);
	return value;
}

void ldfs_hart_set(struct ldfs_board *b, int reg, uint64_t value)
{
	b->machine->uc.reg_write(b->hart->uc, reg, &value);
}

uint64_t ldfs_hart_x(struct ldfs_board *b, uint32_t number)
{
	return ldfs_hart_get(b, LDFS_UC_RISCV_REG_X0 + (int)number);
}

void ldfs_hart_set_x(struct ldfs_board *b, uint32_t number, uint64_t value)
{
	if (number)
		ldfs_hart_set(b, LDFS_UC_RISCV_REG_X0 + (int)number, value);
}

void ldfs_hart_pending(struct ldfs_board *b, uint32_t lines, bool high)
{
	uint64_t privilege = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PRIV), before, now;

	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, MACHINE);
	before = ldfs_hart_get(b, LDFS_UC_RISCV_REG_MIP);
	now = high ? before | lines : before & ~(uint64_t)lines;
	if (now != before)
		ldfs_hart_set(b, LDFS_UC_RISCV_REG_MIP, now);
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, privilege);
	if (now & ~before) {
		b->interrupted = true;
		if (!b->attending)
			ldfs_vcpu_set_work(b->hart);
	}
}
