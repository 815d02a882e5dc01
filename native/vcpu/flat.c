/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flat.c - the x86-64 vCPUs of flat guests: guest address = physical address, no page tables. Which
 * memory exists, what the ports do, what counts as a crash, and the registers.
 */
#include <errno.h>
#include <string.h>

#include "vcpu/vcpu.h"

/* Unicorn's default reserves 1 GiB for each vCPU. */
#define CODE_BUFFER (UINT32_C(64) << 20)

#define PORT_DEBUG 0xe9     /* the emulators' debug console */
#define PORT_COM1 0x3f8     /* transmit register of the first serial line */
#define PORT_COM1_LSR 0x3fd /* its line status register */
#define LSR_MAY_SEND 0x60

/* The period of the timer that ends a hlt. */
#define TICK_NS 1000000u

#define HLT_OPCODE 0xf4
#define EFLAGS_IF (1u << 9)

/* ---------------------------------------------------------------- registers */

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

static void read_registers(const struct ldfs_vcpu *v, ldfs_any_registers *out)
{
	/* Zeroed, because Unicorn writes only as many bytes as a register has. */
	uint64_t values[REGISTERS] = { 0 };

	for (size_t i = 0; i < REGISTERS; i++)
		if (register_ids[i])
			v->machine->uc.reg_read(v->uc, register_ids[i], &values[i]);
	memcpy(&out->x86, values, sizeof(out->x86));
	out->x86.orig_rax = NO_SYSTEM_CALL;
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

/* ------------------------------------------------------------- while it runs */

/*
 * [vCPU] A miss in Unicorn's TLB: it asks which accesses its cached translation of the page may
 * serve.
 *
 * Read and write are always answered together. Unicorn's default answer is only the kind that was
 * asked for, so that a page which is read and written in turn is looked up each time.
 *
 * A page that code was ever fetched from is always answered as executable: only then does Unicorn
 * check each write to it for code that it has translated (self-modifying code). With its default
 * answer it no longer does so after the page was looked up for data again. An answer from before
 * the first fetch may still be cached for another privilege level, so the TLB is flushed then.
 */
static bool on_tlb_fill(ldfs_uc *uc, uint64_t address, int type, struct ldfs_uc_tlb_entry *result,
			void *user)
{
	struct ldfs_vcpu *v = user;
	uint64_t page = ldfs_machine_page(v->machine, address);
	bool code = type == LDFS_UC_MEM_FETCH;

	if (page != UINT64_MAX) {
		uint64_t *word = &v->code_pages[page / 64], bit = UINT64_C(1) << page % 64;

		if (code && !(*word & bit)) {
			*word |= bit;
			v->machine->uc.ctl(uc, LDFS_UC_CTL_WRITE_0(LDFS_UC_CTL_TLB_FLUSH));
		}
		code = *word & bit;
	}
	result->paddr = address;
	result->perms = code ? LDFS_UC_PROT_ALL : LDFS_UC_PROT_READ | LDFS_UC_PROT_WRITE;
	return true;
}

static void on_out(ldfs_uc *uc, uint32_t port, int size, uint32_t value, void *user)
{
	struct ldfs_vcpu *v = user;

	(void)uc;
	(void)size;
	if (port == PORT_DEBUG || port == PORT_COM1)
		ldfs_console_put(&v->machine->console, v->index, (uint8_t)value);
}

static uint32_t on_in(ldfs_uc *uc, uint32_t port, int size, void *user)
{
	(void)uc;
	(void)user;
	if (port == PORT_DEBUG)
		return PORT_DEBUG; /* a guest detects this console by it */
	if (port == PORT_COM1_LSR)
		return LSR_MAY_SEND;
	return size >= 4 ? UINT32_MAX : (UINT32_C(1) << 8 * size) - 1;
}

/*
 * An exception of the CPU. Unicorn cannot enter the guest's own handlers from here, so it ends the
 * guest.
 */
static void on_exception(ldfs_uc *uc, uint32_t number, void *user)
{
	struct ldfs_vcpu *v = user;

	if (v->exception < 0) {
		v->exception = (int32_t)number;
		read_registers(v, &v->crash);
	}
	v->machine->uc.emu_stop(uc);
}

static bool on_bad_access(ldfs_uc *uc, int type, uint64_t address, int size, int64_t value,
			  void *user)
{
	struct ldfs_vcpu *v = user;

	(void)uc;
	(void)size;
	(void)value;
	v->end.access = (uint32_t)type;
	v->end.address = address;
	return false;
}

/* --------------------------------------------------------------- when it ends */

/* Whether emulation ended at a hlt instruction. Unicorn leaves rip behind it. */
static bool is_behind_hlt(const struct ldfs_vcpu *v)
{
	uint64_t page = ldfs_machine_page(v->machine, v->pc - 1);

	return page != UINT64_MAX &&
	       v->machine->ram[page * LDFS_PAGE_SIZE + (v->pc - 1) % LDFS_PAGE_SIZE] == HLT_OPCODE;
}

static enum ldfs_vcpu_next returned(struct ldfs_vcpu *v, int error)
{
	uint64_t eflags = 0;

	if (v->exception >= 0)
		v->pc = v->crash.x86.rip; /* Unicorn changes its own while it unwinds */
	if (error || v->exception >= 0 || !is_behind_hlt(v))
		return LDFS_NEXT_FAIL;
	v->machine->uc.reg_read(v->uc, LDFS_UC_X86_REG_EFLAGS, &eflags);
	return eflags & EFLAGS_IF ? LDFS_NEXT_IDLE : LDFS_NEXT_HALT;
}

/*
 * Sleep until the next tick, or until STOP. A pause does not make it longer: after the tick,
 * ldfs_vcpu_enter() waits for the end of the pause.
 */
static void idle(struct ldfs_vcpu *v)
{
	uint64_t tick = (ldfs_now_ns() / TICK_NS + 1) * TICK_NS;

	while (ldfs_now_ns() < tick) {
		uint32_t attention = load_seq(&v->attention);

		if (attention & STOP)
			return;
		ldfs_vcpu_wait_for_change(v, attention, tick);
	}
}

/* ---------------------------------------------------------------- making one */

/*
 * Hook the addresses where there is no RAM, and no others. Unicorn checks every store to a page
 * that such a hook covers, and a guest then runs at a tenth of its speed.
 */
static int hook_bad_accesses(struct ldfs_vcpu *v)
{
	const ldfs_machine *m = v->machine;
	uint64_t begin = 0;
	size_t hook;
	int error = LDFS_UC_ERR_OK;

	for (uint32_t i = 0; i < m->range_count && !error; i++) {
		uint64_t end = m->ranges[i].start; /* begin > end would mean all addresses */

		if (begin < end)
			error = m->uc.hook_add(v->uc, &hook, LDFS_UC_HOOK_MEM_UNMAPPED,
					       on_bad_access, v, begin, end - 1);
		begin = end + m->ranges[i].size;
	}
	if (!error && begin) /* 0: RAM reaches the last address */
		error = m->uc.hook_add(v->uc, &hook, LDFS_UC_HOOK_MEM_UNMAPPED, on_bad_access, v,
				       begin, UINT64_MAX);
	return error;
}

static int hook(struct ldfs_vcpu *v)
{
	const struct ldfs_uc_api *uc = &v->machine->uc;
	size_t hook;
	/* begin > end: all addresses */
	int error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_INTR, on_exception, v, 1, 0);

	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_INSN, on_out, v, 1, 0,
				     LDFS_UC_X86_INS_OUT);
	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_INSN, on_in, v, 1, 0,
				     LDFS_UC_X86_INS_IN);
	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_TLB_FILL, on_tlb_fill, v, 1, 0);
	return error ? error : hook_bad_accesses(v);
}

const struct ldfs_vcpu_kind ldfs_vcpu_flat = {
	.arch = LDFS_UC_ARCH_X86,
	.mode = LDFS_UC_MODE_64,
	.pc = LDFS_UC_X86_REG_RIP,
	.code_bytes = CODE_BUFFER,
	.hook = hook,
	.returned = returned,
	.idle = idle,
	.read = read_registers,
};
