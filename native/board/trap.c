/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * trap.c - exceptions of the hart. Unicorn takes interrupts by itself, but hands every exception to
 * us, and so does the walk of mmu.c.
 */
#include "board/within.h"

#define SIE (UINT64_C(1) << 1)
#define SPIE (UINT64_C(1) << 5)
#define SPP (UINT64_C(1) << 8)

/* csrrs rd, time, x0: `rdtime`, which Unicorn does not have. */
#define IS_RDTIME(instruction) (((instruction) & 0xfffff07f) == 0xc0102073)
#define RD(instruction) ((instruction) >> 7 & 31)
#define RS1(instruction) ((instruction) >> 15 & 31)

/* There is no handler: the hart could only trap for ever. */
static void crash(struct ldfs_board *b, uint64_t cause, uint64_t pc)
{
	struct ldfs_vcpu *v = b->hart;

	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PC, pc);
	v->exception = (int32_t)cause;
	v->machine->kind->read(v, &v->crash);
	b->wish = WISH_FAIL;
	b->machine->uc.emu_stop(v->uc);
}

void ldfs_trap(struct ldfs_board *b, uint64_t cause, uint64_t pc, uint64_t value)
{
	uint64_t privilege = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PRIV), status;

	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, SUPERVISOR);
	if (!ldfs_hart_get(b, LDFS_UC_RISCV_REG_STVEC)) {
		ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, privilege);
		crash(b, cause, pc);
		return;
	}
	status = ldfs_hart_get(b, LDFS_UC_RISCV_REG_SSTATUS);
	status = (status & ~(SPIE | SPP | SIE)) | (status & SIE ? SPIE : 0) |
		 (privilege == SUPERVISOR ? SPP : 0);
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_SSTATUS, status);
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_SEPC, pc);
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_SCAUSE, cause);
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_STVAL, value);
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PC,
		      ldfs_hart_get(b, LDFS_UC_RISCV_REG_STVEC) & ~UINT64_C(3));
}

/* ------------------------------------------------------- the address of a fault */

static int64_t extend(uint32_t value, uint32_t bits)
{
	return (int64_t)((uint64_t)value << (64 - bits)) >> (64 - bits);
}

static uint32_t bits(uint32_t from, uint32_t high, uint32_t low)
{
	return from >> low & ((1u << (high - low + 1)) - 1);
}

/* The address that a compressed load or store has; they are of 4 or of 8 bytes. */
static uint64_t compressed_address(struct ldfs_board *b, uint32_t i)
{
	bool wide = bits(i, 14, 13) != 2; /* c.lw, c.sw and the like are xx10xx; else 8 bytes */
	uint32_t offset;

	if ((i & 3) == 0) {
		offset = bits(i, 12, 10) << 3;
		offset |= wide ? bits(i, 6, 5) << 6 : bits(i, 6, 6) << 2 | bits(i, 5, 5) << 6;
		return ldfs_hart_x(b, 8 + bits(i, 9, 7)) + offset;
	}
	if (i & 0x8000) /* a store at the stack pointer */
		offset = wide ? bits(i, 12, 10) << 3 | bits(i, 9, 7) << 6
			      : bits(i, 12, 9) << 2 | bits(i, 8, 7) << 6;
	else
		offset = bits(i, 12, 12) << 5 | (wide ? bits(i, 6, 5) << 3 | bits(i, 4, 2) << 6
						      : bits(i, 6, 4) << 2 | bits(i, 3, 2) << 6);
	return ldfs_hart_x(b, 2) + offset;
}

/* The address that the load, store or atomic instruction uses. */
static uint64_t used_address(struct ldfs_board *b, uint32_t i)
{
	if ((i & 3) != 3)
		return compressed_address(b, i);
	switch (i & 0x7f) {
	case 0x03: /* loads, and those of floating point */
	case 0x07:
		return ldfs_hart_x(b, RS1(i)) + (uint64_t)extend(bits(i, 31, 20), 12);
	case 0x23: /* stores */
	case 0x27:
		return ldfs_hart_x(b, RS1(i)) +
		       (uint64_t)extend(bits(i, 31, 25) << 5 | bits(i, 11, 7), 12);
	default: /* atomics */
		return ldfs_hart_x(b, RS1(i));
	}
}

/*
 * Unicorn says in which page the fault was. Where in it is what the instruction says; if it says
 * another page, the access began there, and the fault was at this one's first byte.
 */
static uint64_t fault_address(struct ldfs_board *b, const struct fault *fault)
{
	uint64_t privilege = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PRIV), address;

	if (fault->cause == FETCH_FAULT || fault->cause == FETCH_ACCESS)
		address = fault->pc;
	else
		address = used_address(b, ldfs_mmu_instruction(b, fault->pc, privilege));
	return address / LDFS_PAGE_SIZE == fault->page / LDFS_PAGE_SIZE ? address : fault->page;
}

void ldfs_trap_fault(struct ldfs_board *b)
{
	struct fault fault = b->fault;

	b->fault.is = false;
	/* On its way out Unicorn may have taken an interrupt. The fault comes again after it. */
	if (ldfs_hart_get(b, LDFS_UC_RISCV_REG_PC) == fault.pc)
		ldfs_trap(b, fault.cause, fault.pc, fault_address(b, &fault));
}

/* ---------------------------------------------------------- while Unicorn runs */

/* [vCPU] An exception. Unicorn has moved the program counter behind 4 bytes. */
void ldfs_trap_on_exception(ldfs_uc *uc, uint32_t number, void *user)
{
	struct ldfs_board *b = user;
	uint64_t pc = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PC) - 4;
	uint64_t privilege = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PRIV);
	uint32_t instruction = 0;

	(void)uc;
	if (number == CALL_FROM_USER && privilege == SUPERVISOR) {
		ldfs_sbi_call(b);
		return;
	}
	if (number == ILLEGAL_INSTRUCTION) {
		instruction = ldfs_mmu_instruction(b, pc, privilege);
		if (IS_RDTIME(instruction)) {
			ldfs_hart_set_x(b, RD(instruction), ldfs_clock_now());
			return;
		}
	}
	ldfs_trap(b, number, pc, instruction);
}

/* [vCPU] `ebreak` goes another way, and leaves the program counter where it is. */
bool ldfs_trap_on_breakpoint(ldfs_uc *uc, void *user)
{
	struct ldfs_board *b = user;
	uint64_t pc = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PC);

	(void)uc;
	ldfs_trap(b, BREAKPOINT, pc, pc);
	b->breakpoint = true;
	return true;
}
