/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mmu.c - virtual addresses of the guest (Sv39, Sv48, Sv57), and which of its pages have code.
 *
 * Unicorn keeps a cache of translations (TLB) and one of translated code. It drops translated code
 * that a store changes only as long as the store's TLB entry says that the page has code; its own
 * RISC-V page walk forgets that after the first store through an address that is not executable,
 * which is how Linux writes all code. So the walk is ours, and a page of RAM is in one of two
 * states:
 *
 *   data  no code was translated from it; entries for it may be written through, none is executable
 *   code  it has translated code; entries may be executable, and those that may be written through
 *         are executable, too, so that Unicorn checks each such store
 *
 * A fetch from a data page makes it a code page. A store to a code page through an address that is
 * not executable, or by a device, drops the code and makes it a data page. Both flush the TLB, so
 * that no entry of the state before is left.
 */
#include <string.h>

#include "board/within.h"

enum { PTE_V = 1, PTE_R = 2, PTE_W = 4, PTE_X = 8, PTE_U = 16, PTE_A = 64, PTE_D = 128 };
#define PTE_RESERVED (UINT64_C(0x3ff) << 54) /* none of the extensions is announced */
#define PTE_PAGE(pte) (((pte) >> 10) & ((UINT64_C(1) << 44) - 1))

#define SATP_MODE(satp) ((satp) >> 60)
#define SATP_ROOT(satp) (((satp) & ((UINT64_C(1) << 44) - 1)) << 12)
#define SSTATUS_SUM (1u << 18)
#define SSTATUS_MXR (1u << 19)
#define IN_PAGE (LDFS_PAGE_SIZE - 1)

uint8_t *ldfs_ram_at(struct ldfs_board *b, uint64_t address, uint64_t size)
{
	uint64_t offset = address - LDFS_BOARD_RAM;

	if (address < LDFS_BOARD_RAM || offset > b->ram_size || size > b->ram_size - offset)
		return NULL;
	return b->ram + offset;
}

/* ------------------------------------------------------------- pages of code */

static void flush_tlb(struct ldfs_board *b)
{
	b->machine->uc.ctl(b->hart->uc, LDFS_UC_CTL_WRITE_0(LDFS_UC_CTL_TLB_FLUSH));
}

/*
 * Unicorn takes a virtual address, and looks it up as an instruction's at the privilege of now. The
 * caller flushes the TLB, which is slow, when the last page is done.
 */
static void drop_code(struct ldfs_board *b, uint64_t page)
{
	uint64_t privilege = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PRIV);
	uint64_t begin = LDFS_BOARD_RAM + page * LDFS_PAGE_SIZE;

	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, MACHINE);
	b->raw = true;
	b->machine->uc.ctl(b->hart->uc, LDFS_UC_CTL_WRITE_2(LDFS_UC_CTL_TB_REMOVE_CACHE), begin,
			   begin + LDFS_PAGE_SIZE);
	b->raw = false;
	ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, privilege);
}

static bool is_code(const struct ldfs_board *b, uint64_t page)
{
	return b->hart->code_pages[page / 64] >> page % 64 & 1;
}

static void become_code(struct ldfs_board *b, uint64_t page)
{
	if (is_code(b, page))
		return;
	b->hart->code_pages[page / 64] |= UINT64_C(1) << page % 64;
	flush_tlb(b);
}

static void become_data(struct ldfs_board *b, uint64_t first, uint64_t end)
{
	bool dropped = false;

	for (uint64_t page = first; page < end; page++) {
		if (!is_code(b, page))
			continue;
		b->hart->code_pages[page / 64] &= ~(UINT64_C(1) << page % 64);
		drop_code(b, page);
		dropped = true;
	}
	if (dropped)
		flush_tlb(b);
}

void ldfs_mmu_stores(struct ldfs_board *b, const uint8_t *at, uint64_t size)
{
	uint64_t begin = (uint64_t)(at - b->ram), end = begin + size;

	become_data(b, begin / LDFS_PAGE_SIZE, (end + LDFS_PAGE_SIZE - 1) / LDFS_PAGE_SIZE);
}

void ldfs_mmu_copy(struct ldfs_board *b, uint8_t *at, const void *from, uint64_t size)
{
	ldfs_mmu_stores(b, at, size);
	memcpy(at, from, size);
}

/* ------------------------------------------------------------------ the walk */

static uint64_t page_fault(enum access access)
{
	static const uint64_t causes[] = { READ_FAULT, WRITE_FAULT, FETCH_FAULT };

	return causes[access];
}

static uint64_t access_fault(enum access access)
{
	static const uint64_t causes[] = { READ_ACCESS, WRITE_ACCESS, FETCH_ACCESS };

	return causes[access];
}

static bool may(uint64_t pte, enum access access, uint64_t privilege, uint64_t sstatus)
{
	if (privilege == USER
		    ? !(pte & PTE_U)
		    : (pte & PTE_U) && (access == ACCESS_FETCH || !(sstatus & SSTATUS_SUM)))
		return false;
	if (access == ACCESS_FETCH)
		return pte & PTE_X;
	if (access == ACCESS_WRITE)
		return pte & PTE_W;
	return pte & PTE_R || (sstatus & SSTATUS_MXR && pte & PTE_X);
}

struct tables {
	uint64_t root, sstatus;
	uint32_t levels; /* 0: addresses are physical */
};

static struct tables read_tables(struct ldfs_board *b, uint64_t privilege)
{
	struct tables t = { 0 };
	uint64_t satp;

	/* A user's hart may not read them. */
	if (privilege == USER)
		ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, SUPERVISOR);
	satp = ldfs_hart_get(b, LDFS_UC_RISCV_REG_SATP);
	t.sstatus = ldfs_hart_get(b, LDFS_UC_RISCV_REG_SSTATUS);
	if (privilege == USER)
		ldfs_hart_set(b, LDFS_UC_RISCV_REG_PRIV, USER);
	/* Sv39, Sv48, Sv57; Unicorn lets no other number in. */
	if (SATP_MODE(satp) >= 8 && SATP_MODE(satp) <= 10)
		t.levels = (uint32_t)SATP_MODE(satp) - 5;
	t.root = SATP_ROOT(satp);
	return t;
}

/* A leaf at `level`: the rights that it gives, after its bits for used and changed were set. */
static uint32_t use_leaf(uint64_t *entry, enum access access, uint64_t sstatus)
{
	uint64_t pte = *entry | PTE_A | (access == ACCESS_WRITE ? PTE_D : 0);
	uint32_t rights = 0;

	if (pte != *entry)
		*(volatile uint64_t *)entry = pte;
	if (pte & PTE_R || (sstatus & SSTATUS_MXR && pte & PTE_X))
		rights |= LDFS_UC_PROT_READ;
	if (pte & PTE_W && pte & PTE_D)
		rights |= LDFS_UC_PROT_WRITE;
	if (pte & PTE_X)
		rights |= LDFS_UC_PROT_EXEC;
	return rights;
}

uint64_t ldfs_mmu_translate(struct ldfs_board *b, uint64_t address, enum access access,
			    uint64_t privilege, uint64_t *physical, uint32_t *rights)
{
	struct tables t = read_tables(b, privilege);
	uint64_t table = t.root;

	*physical = address;
	*rights = LDFS_UC_PROT_ALL;
	if (!t.levels)
		return 0;
	/* The bits above the topmost index must be copies of its highest bit. */
	if ((uint64_t)((int64_t)(address << (52 - 9 * t.levels)) >> (52 - 9 * t.levels)) != address)
		return page_fault(access);
	for (uint32_t level = t.levels; level-- > 0;) {
		uint64_t index = address >> (12 + 9 * level) & 511;
		uint64_t below = (UINT64_C(1) << (12 + 9 * level)) - 1;
		uint64_t *entry = (uint64_t *)ldfs_ram_at(b, table + index * 8, 8), pte;

		if (!entry)
			return access_fault(access);
		pte = *entry;
		if (!(pte & PTE_V) || pte & PTE_RESERVED || (pte & (PTE_R | PTE_W)) == PTE_W)
			return page_fault(access);
		if (!(pte & (PTE_R | PTE_X))) {
			table = PTE_PAGE(pte) << 12;
			continue;
		}
		if (!may(pte, access, privilege, t.sstatus) || (PTE_PAGE(pte) << 12 & below))
			return page_fault(access);
		*rights = use_leaf(entry, access, t.sstatus);
		*physical = PTE_PAGE(pte) << 12 | (address & below);
		return 0;
	}
	return page_fault(access);
}

uint32_t ldfs_mmu_instruction(struct ldfs_board *b, uint64_t pc, uint64_t privilege)
{
	uint32_t instruction = 0;

	/* It may cross into another page. */
	for (uint32_t i = 0; i < 2; i++) {
		uint64_t physical;
		uint32_t rights;
		uint8_t *at;
		uint16_t half;

		if (ldfs_mmu_translate(b, pc + 2 * i, ACCESS_FETCH, privilege, &physical, &rights))
			break;
		at = ldfs_ram_at(b, physical, 2);
		if (!at)
			break;
		memcpy(&half, at, sizeof(half));
		instruction |= (uint32_t)half << 16 * i;
		if (i == 0 && (half & 3) != 3)
			break; /* a compressed one */
	}
	return instruction;
}

/* -------------------------------------------------------------- Unicorn's TLB */

static bool is_device(uint64_t address)
{
	return address - LDFS_BOARD_PLIC < LDFS_BOARD_PLIC_SIZE ||
	       address - LDFS_BOARD_RTC < LDFS_BOARD_DEVICE_SIZE ||
	       address - LDFS_BOARD_UART < 2 * LDFS_BOARD_DEVICE_SIZE;
}

/* Bring the page into the state that the access needs; returns what Unicorn may do through it. */
static uint32_t rights_in_state(struct ldfs_board *b, uint64_t page, enum access access,
				uint32_t rights)
{
	if (access == ACCESS_FETCH)
		become_code(b, page);
	else if (access == ACCESS_WRITE && !(rights & LDFS_UC_PROT_EXEC))
		become_data(b, page, page + 1);
	if (!is_code(b, page))
		return rights & ~(uint32_t)LDFS_UC_PROT_EXEC;
	if (!(rights & LDFS_UC_PROT_EXEC))
		return rights & ~(uint32_t)LDFS_UC_PROT_WRITE;
	return rights;
}

/* [vCPU] A miss in Unicorn's TLB: where is this page, and what may be done through it? */
bool ldfs_mmu_on_tlb_fill(ldfs_uc *uc, uint64_t address, int type, struct ldfs_uc_tlb_entry *result,
			  void *user)
{
	struct ldfs_board *b = user;
	enum access access = type == LDFS_UC_MEM_FETCH   ? ACCESS_FETCH
			     : type == LDFS_UC_MEM_WRITE ? ACCESS_WRITE
							 : ACCESS_READ;
	uint64_t privilege, physical, cause;
	uint32_t rights;

	(void)uc;
	if (b->raw) {
		result->paddr = address;
		result->perms = LDFS_UC_PROT_ALL;
		return true;
	}
	privilege = ldfs_hart_get(b, LDFS_UC_RISCV_REG_PRIV);
	cause = ldfs_mmu_translate(b, address, access, privilege, &physical, &rights);
	if (!cause && ldfs_ram_at(b, physical, LDFS_PAGE_SIZE))
		rights = rights_in_state(b, (physical - LDFS_BOARD_RAM) / LDFS_PAGE_SIZE, access,
					 rights);
	else if (!cause && access != ACCESS_FETCH && is_device(physical))
		rights &= ~(uint32_t)LDFS_UC_PROT_EXEC;
	else if (!cause)
		cause = access_fault(access);
	if (cause) {
		b->fault = (struct fault){ true, cause, ldfs_hart_get(b, LDFS_UC_RISCV_REG_PC),
					   address & ~(uint64_t)IN_PAGE };
		return false;
	}
	result->paddr = physical & ~(uint64_t)IN_PAGE;
	result->perms = (int)rights;
	return true;
}
