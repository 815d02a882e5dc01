/* SPDX-License-Identifier: GPL-2.0-or-later */
/* emulate.c - a Unicorn instance for a vCPU of any kind, and where it may be held. */
#include "vcpu/vcpu.h"

/*
 * [vCPU] Unicorn calls this before each block of guest code. It is the only place where a running
 * vCPU is held.
 */
static void on_block(ldfs_uc *uc, uint64_t address, uint32_t size, void *user)
{
	struct ldfs_vcpu *v = user;
	uint32_t attention = load_relaxed(&v->attention);

	(void)address;
	(void)size;
	if (__builtin_expect(attention == 0, 1))
		return;
	if (attention & ~WORK) {
		ldfs_vcpu_leave(v);
		if (!ldfs_vcpu_enter(v)) {
			/* Stopping is exact here: the block does not run. */
			v->machine->uc.emu_stop(uc);
			return;
		}
	}
	ldfs_vcpu_attend(v);
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
 * Make one Unicorn instance. Its translations of addresses come from the kind's hook
 * (UC_HOOK_TLB_FILL).
 */
int ldfs_vcpu_open(struct ldfs_vcpu *v)
{
	const ldfs_machine *m = v->machine;
	const struct ldfs_uc_api *uc = &m->uc;
	int error = uc->open(m->kind->arch, m->kind->mode, &v->uc);
	size_t hook;

	if (!error)
		error = uc->ctl(v->uc, LDFS_UC_CTL_WRITE_1(LDFS_UC_CTL_TCG_BUFFER_SIZE),
				m->kind->code_bytes);
	if (!error)
		error = uc->ctl(v->uc, LDFS_UC_CTL_WRITE_1(LDFS_UC_CTL_TLB_TYPE),
				LDFS_UC_TLB_VIRTUAL);
	for (uint32_t i = 0; i < m->range_count && !error; i++)
		error = uc->mem_map_ptr(v->uc, m->ranges[i].start, m->ranges[i].size,
					LDFS_UC_PROT_ALL, m->ram + m->ranges[i].ram_offset);
	if (!error) /* begin > end: all addresses */
		error = uc->hook_add(v->uc, &hook, LDFS_UC_HOOK_BLOCK, on_block, v, 1, 0);
	return error ? error : m->kind->hook(v);
}
