/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * plic.c - the interrupt controller (RISC-V Platform-Level Interrupt Controller 1.0), with one
 * context: the hart's supervisor. All sources are levels.
 */
#include "board/within.h"

#define REGISTER_SIZE 4 /* other accesses do nothing */
#define PRIORITY_END (4 * (LDFS_BOARD_IRQS + 1))
#define PENDING 0x1000
#define ENABLED 0x2000
#define THRESHOLD 0x200000
#define CLAIM 0x200004
#define PRIORITY_MOST 7u
#define SOURCES ((2u << LDFS_BOARD_IRQS) - 2) /* there is no source 0 */

/* The source to serve next, 0: none. */
static uint32_t best(const struct plic *p)
{
	uint32_t ready = p->level & p->enabled & ~p->claimed, found = 0, above = p->threshold;

	for (uint32_t irq = 1; irq <= LDFS_BOARD_IRQS; irq++)
		if (ready >> irq & 1 && p->priority[irq] > above) {
			found = irq;
			above = p->priority[irq];
		}
	return found;
}

static void update(struct ldfs_board *b)
{
	ldfs_hart_pending(b, EXTERNAL_PENDING, best(&b->plic) != 0);
}

void ldfs_plic_line(struct ldfs_board *b, uint32_t irq, bool high)
{
	uint32_t before = b->plic.level;

	b->plic.level = (before & ~(1u << irq)) | (uint32_t)high << irq;
	if (b->plic.level != before)
		update(b);
}

uint64_t ldfs_plic_read(ldfs_uc *uc, uint64_t offset, unsigned int size, void *user)
{
	struct ldfs_board *b = user;
	struct plic *p = &b->plic;
	uint32_t irq;

	(void)uc;
	if (size != REGISTER_SIZE)
		return 0;
	if (offset < PRIORITY_END)
		return p->priority[offset / 4];
	switch (offset) {
	case PENDING:
		return p->level & ~p->claimed;
	case ENABLED:
		return p->enabled;
	case THRESHOLD:
		return p->threshold;
	case CLAIM:
		irq = best(p);
		if (irq) {
			p->claimed |= 1u << irq;
			update(b);
		}
		return irq;
	}
	return 0;
}

void ldfs_plic_write(ldfs_uc *uc, uint64_t offset, unsigned int size, uint64_t value, void *user)
{
	struct ldfs_board *b = user;
	struct plic *p = &b->plic;

	(void)uc;
	if (size != REGISTER_SIZE)
		return;
	if (offset < PRIORITY_END)
		p->priority[offset / 4] = (uint32_t)value & PRIORITY_MOST;
	else if (offset == ENABLED)
		p->enabled = (uint32_t)value & SOURCES;
	else if (offset == THRESHOLD)
		p->threshold = (uint32_t)value & PRIORITY_MOST;
	else if (offset == CLAIM && value <= LDFS_BOARD_IRQS)
		p->claimed &= ~(1u << value);
	update(b);
}
