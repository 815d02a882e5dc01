/* SPDX-License-Identifier: GPL-2.0-or-later */
/* processor.h - what the built-in guest does in another way on each processor, for x86-64. */
#ifndef PROCESSOR_H
#define PROCESSOR_H

#include "boot.h"

/* The second counter of transfers. Every file is compiled so that nothing else uses the register.
 */
register u64 transfers_in_register __asm__("r15");

static inline void put(char c)
{
	__asm__ volatile("outb %%al, $0xe9" : : "a"(c));
}

/* Each is one instruction, and not idempotent: if it runs twice, the sums show it. */
static inline void add_to(volatile u64 *word, u64 amount)
{
	__asm__ volatile("addq %1, %0" : "+m"(*word) : "r"(amount) : "cc", "memory");
}

static inline void take_from(volatile u64 *word, u64 amount)
{
	__asm__ volatile("subq %1, %0" : "+m"(*word) : "r"(amount) : "cc", "memory");
}

static inline void count_transfer(u64 *transfers)
{
	__asm__ volatile("incq %0\n\tincq %%r15" : "+m"(*transfers) : : "cc", "memory");
}

/*
 * The host holds a vCPU only between two blocks of code. So a block must end here, or no dump would
 * ever show an open journal.
 */
static inline void end_block(void)
{
	__asm__ volatile("jmp 1f\n1:" ::: "memory");
}

static inline void sleep_ticks(u32 ticks)
{
	for (u32 i = 0; i < ticks; i++)
		__asm__ volatile("sti\n\thlt" ::: "memory");
}

#endif
