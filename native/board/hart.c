/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hart.c - the board's vCPU: a kind of vcpu/ with page tables, traps and devices. */
#include <string.h>

#include "board/within.h"

/* Of the code that Linux and some programs make; beyond it Unicorn drops all and begins anew. */
#define CODE_BUFFER (UINT32_C(128) << 20)

/* What a firmware leaves to the supervisor: all interrupts of its level, and all exceptions. */
#define DELEGATED (SOFTWARE_PENDING | TIMER_PENDING | EXTERNAL_PENDING)

enum { A0 = 10, A1 };

/* ------------------------------------------------------------- while it runs */

/*
 * At the begin of a block of guest code. Unicorn looks for interrupts only when something ends the
 * chain of blocks that it runs, such as a new program counter; here it gets the one that it has.
 */
static void attend(struct ldfs_vcpu *v)
{
	struct ldfs_board *b = v->machine->owner;

	b->attending = true;
	ldfs_clock_attend(b);
	ldfs_serial_attend(b);
	ldfs_virtio_attend(b);
	b->attending = false;
	if (b->interrupted)
		ldfs_hart_set(b, LDFS_UC_RISCV_REG_PC, ldfs_hart_get(b, LDFS_UC_RISCV_REG_PC));
	b->interrupted = false;
}

static bool has_pending(struct ldfs_board *b)
{
	uint64_t privilege = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PRIV), pending;

	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, MACHINE);
	pending = ldfs_hart_get(b, LDFS_UC_RISCV_REG_MIP) & ldfs_hart_get(b, LDFS_UC_RISCV_REG_MIE);
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, privilege);
	return pending;
}

static enum ldfs_vcpu_next returned(struct ldfs_vcpu *v, int error)
{
	struct ldfs_board *b = v->machine->owner;
	bool breakpoint = b->breakpoint;
	bool fault = error == LDFS_UC_ERR_EXCEPTION && b->fault.is;

	b->breakpoint = false;
	if (b->wish == WISH_OFF) {
		store_seq(&b->off, 1);
		return LDFS_NEXT_HALT;
	}
	if (b->wish == WISH_REBOOT) {
		ldfs_hart_reset(b);
		return LDFS_NEXT_AGAIN;
	}
	if (fault && b->wish != WISH_FAIL)
		ldfs_trap_fault(b);
	if (b->wish == WISH_FAIL) {
		v->pc = v->crash.riscv.pc;
		return LDFS_NEXT_FAIL;
	}
	if (error == LDFS_UC_ERR_EXCEPTION ? !breakpoint && !fault : error != LDFS_UC_ERR_OK)
		return LDFS_NEXT_FAIL;
	if (!error && !has_pending(b))
		return LDFS_NEXT_IDLE; /* wfi: nothing else ends emulation without an error */
	v->pc = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PC);
	return LDFS_NEXT_AGAIN;
}

/* In wfi: sleep until the timer's time has come or a device has something. */
static void idle(struct ldfs_vcpu *v)
{
	struct ldfs_board *b = v->machine->owner;

	while (ldfs_now_ns() < b->clock.due_ns) {
		uint32_t attention = load_seq(&v->attention);

		if (attention & (STOP | WORK))
			return;
		ldfs_vcpu_wait_for_change(v, attention, b->clock.due_ns);
	}
	ldfs_vcpu_set_work(v);
}

/* ---------------------------------------------------------------- registers */

/* From `sstatus` on, in the order of ldfs_riscv_registers. */
static const int system_ids[] = {
	LDFS_UC_RISCV_REG_SSTATUS,  LDFS_UC_RISCV_REG_SIE,  LDFS_UC_RISCV_REG_STVEC,
	LDFS_UC_RISCV_REG_SSCRATCH, LDFS_UC_RISCV_REG_SEPC, LDFS_UC_RISCV_REG_SCAUSE,
	LDFS_UC_RISCV_REG_STVAL,    LDFS_UC_RISCV_REG_SIP,  LDFS_UC_RISCV_REG_SATP,
};
#define SYSTEM_IDS (sizeof(system_ids) / sizeof(system_ids[0]))
_Static_assert(sizeof(ldfs_riscv_registers) == (32 + SYSTEM_IDS + 1) * sizeof(uint64_t),
	       "pc, 31 general ones, those of the system, the privilege");

static void read_registers(const struct ldfs_vcpu *v, ldfs_any_registers *out)
{
	const struct ldfs_uc_api *uc = &v->machine->uc;
	uint64_t values[32 + SYSTEM_IDS + 1] = { 0 }, machine = MACHINE;
	uint64_t *privilege = &values[32 + SYSTEM_IDS];

	uc->reg_read(v->uc, LDFS_UC_RISCV_REG_PC, &values[0]);
	for (int i = 1; i < 32; i++)
		uc->reg_read(v->uc, LDFS_UC_RISCV_REG_X0 + i, &values[i]);
	uc->reg_read(v->uc, LDFS_UC_RISCV_REG_PRIV, privilege);
	/* A user's hart may not read the others. */
	uc->reg_write(v->uc, LDFS_UC_RISCV_REG_PRIV, &machine);
	for (size_t i = 0; i < SYSTEM_IDS; i++)
		uc->reg_read(v->uc, system_ids[i], &values[32 + i]);
	uc->reg_write(v->uc, LDFS_UC_RISCV_REG_PRIV, privilege);
	memset(out, 0, sizeof(*out));
	memcpy(&out->riscv, values, sizeof(out->riscv));
}

/* ------------------------------------------------------------- making, rebooting */

static void reset_registers(struct ldfs_board *b)
{
	static const int cleared[] = {
		LDFS_UC_RISCV_REG_MIP,    LDFS_UC_RISCV_REG_MIE,  LDFS_UC_RISCV_REG_SSTATUS,
		LDFS_UC_RISCV_REG_STVEC,  LDFS_UC_RISCV_REG_SEPC, LDFS_UC_RISCV_REG_SSCRATCH,
		LDFS_UC_RISCV_REG_SCAUSE, LDFS_UC_RISCV_REG_SATP, LDFS_UC_RISCV_REG_STVAL,
	};

	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, MACHINE);
	for (size_t i = 0; i < sizeof(cleared) / sizeof(cleared[0]); i++)
		ldfs_hart_set(b, cleared[i], 0);
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_MIDELEG, DELEGATED);
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, SUPERVISOR);
	for (uint32_t i = 1; i < 32; i++)
		ldfs_hart_set_x(b, i, 0);
	ldfs_hart_set_x(b, A0, 0); /* its number */
	ldfs_hart_set_x(b, A1, b->told);
	b->hart->pc = b->entry;
}

void ldfs_hart_reset(struct ldfs_board *b)
{
	const struct ldfs_uc_api *uc = &b->machine->uc;

	b->wish = WISH_NONE;
	b->fault.is = false;
	ldfs_clock_set(b, UINT64_MAX);
	memset(&b->plic, 0, sizeof(b->plic));
	b->uart.ier = b->uart.lcr = b->uart.mcr = 0;
	b->uart.sent = false;
	ldfs_virtio_reset(b);
	for (uint32_t i = 0; i < b->part_count; i++) {
		const ldfs_boot_part *p = &b->parts[i];

		ldfs_mmu_copy(b, ldfs_ram_at(b, p->address, p->size), p->bytes, p->size);
	}
	uc->ctl(b->hart->uc, LDFS_UC_CTL_WRITE_0(LDFS_UC_CTL_TB_FLUSH));
	uc->ctl(b->hart->uc, LDFS_UC_CTL_WRITE_0(LDFS_UC_CTL_TLB_FLUSH));
	reset_registers(b);
	add_seq(&b->boots, 1);
}

static int map_devices(struct ldfs_board *b, ldfs_uc *hart)
{
	const struct ldfs_uc_api *uc = &b->machine->uc;
	int error = uc->mmio_map(hart, LDFS_BOARD_RTC, LDFS_BOARD_DEVICE_SIZE, ldfs_rtc_read, b,
				 ldfs_rtc_write, b);

	if (!error)
		error = uc->mmio_map(hart, LDFS_BOARD_PLIC, LDFS_BOARD_PLIC_SIZE, ldfs_plic_read, b,
				     ldfs_plic_write, b);
	if (!error)
		error = uc->mmio_map(hart, LDFS_BOARD_UART, LDFS_BOARD_DEVICE_SIZE,
				     ldfs_serial_read, b, ldfs_serial_write, b);
	if (!error)
		error = uc->mmio_map(hart, LDFS_BOARD_DISK, LDFS_BOARD_DEVICE_SIZE,
				     ldfs_virtio_read, b, ldfs_virtio_write, b);
	return error;
}

static int hook(struct ldfs_vcpu *v)
{
	const struct ldfs_uc_api *uc = &v->machine->uc;
	struct ldfs_board *b = v->machine->owner;
	size_t hook;
	/*
	 * No address ends emulation. Unicorn would otherwise look the one of uc_emu_start up in the
	 * guest's page tables each time it returns.
	 */
	int error = uc->ctl(v->uc, LDFS_UC_CTL_WRITE_1(LDFS_UC_CTL_UC_USE_EXITS), 1);

	b->machine = v->machine;
	b->hart = v;
	if (!error) /* begin > end: all addresses */
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_INTR, ldfs_trap_on_exception, b, 1,
				     0);
	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_INSN_INVALID,
				     ldfs_trap_on_breakpoint, b, 1, 0);
	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_TLB_FILL, ldfs_mmu_on_tlb_fill, b,
				     1, 0);
	return error ? error : map_devices(b, v->uc);
}

const struct ldfs_vcpu_kind ldfs_board_kind = {
	.arch = LDFS_UC_ARCH_RISCV,
	.mode = LDFS_UC_MODE_RISCV64,
	.pc = LDFS_UC_RISCV_REG_PC,
	.code_bytes = CODE_BUFFER,
	.hook = hook,
	.attend = attend,
	.returned = returned,
	.idle = idle,
	.read = read_registers,
};
