/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * emulate.c - the callbacks of Unicorn while it runs guest code: where a vCPU may be held, which
 * memory exists, what the ports do, what counts as a crash.
 */
#include "vcpu/vcpu.h"

/* Buffer for the translated code of one vCPU. Unicorn's default reserves 1 GiB for each. */
#define CODE_BUFFER (UINT32_C(64) << 20)

#define PORT_DEBUG 0xe9     /* the emulators' debug console */
#define PORT_COM1 0x3f8     /* transmit register of the first serial line */
#define PORT_COM1_LSR 0x3fd /* its line status register */
#define LSR_MAY_SEND 0x60

/* ------------------------------------------------------------- while it runs */

/*
 * [vCPU] Unicorn calls this before each block of guest code. It is the only place where a running
 * vCPU is held.
 */
static void on_block(ldfs_uc *uc, uint64_t address, uint32_t size, void *user)
{
	struct ldfs_vcpu *v = user;

	(void)address;
	(void)size;
	if (__builtin_expect(load_relaxed(&v->attention) == 0, 1))
		return;
	ldfs_vcpu_leave(v);
	if (!ldfs_vcpu_enter(v))
		v->machine->uc.emu_stop(uc); /* stopping is exact here: the block does not run */
}

/* The page number in the arena of a guest address, UINT64_MAX where there is no RAM. */
uint64_t ldfs_machine_page(const ldfs_machine *m, uint64_t address)
{
	for (uint32_t i = 0; i < m->range_count; i++) {
		const ldfs_ram_range *r = &m->ranges[i];

		if (address >= r->start && address - r->start < r->size)
			return (r->ram_offset + (address - r->start)) / LDFS_PAGE_SIZE;
	}
	return UINT64_MAX;
}

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
		ldfs_vcpu_read(v, &v->crash);
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

static int add_hooks(struct ldfs_vcpu *v)
{
	const struct ldfs_uc_api *uc = &v->machine->uc;
	size_t hook;
	int error;

	/* begin > end: all addresses */
	error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_BLOCK, on_block, v, 1, 0);
	if (!error)
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_INTR, on_exception, v, 1, 0);
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

/* Make one Unicorn instance: flat long mode, guest address = physical address, no page tables. */
int ldfs_vcpu_open(struct ldfs_vcpu *v)
{
	const ldfs_machine *m = v->machine;
	const struct ldfs_uc_api *uc = &m->uc;
	int error = uc->open(LDFS_UC_ARCH_X86, LDFS_UC_MODE_64, &v->uc);

	if (!error)
		error = uc->ctl(v->uc, LDFS_UC_CTL_WRITE_1(LDFS_UC_CTL_TCG_BUFFER_SIZE),
				CODE_BUFFER);
	if (!error)
		error = uc->ctl(v->uc, LDFS_UC_CTL_WRITE_1(LDFS_UC_CTL_TLB_TYPE),
				LDFS_UC_TLB_VIRTUAL);
	for (uint32_t i = 0; i < m->range_count && !error; i++)
		error = uc->mem_map_ptr(v->uc, m->ranges[i].start, m->ranges[i].size,
					LDFS_UC_PROT_ALL, m->ram + m->ranges[i].ram_offset);
	return error ? error : add_hooks(v);
}
