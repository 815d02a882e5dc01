/* SPDX-License-Identifier: GPL-2.0-or-later */
/* processor.h - what the built-in guest does in another way on each processor, for riscv64. */
#ifndef PROCESSOR_H
#define PROCESSOR_H

#include "boot.h"

#define TICK 10000 /* of the clock, 10 MHz: 1 ms */

/* The second counter of transfers. Every file is compiled so that nothing else uses the register.
 */
register u64 transfers_in_register __asm__("s11");

/* A call of the firmware (SBI). */
static inline void call_firmware(u64 extension, u64 function, u64 argument)
{
	register u64 a0 __asm__("a0") = argument;
	register u64 a1 __asm__("a1") = 0;
	register u64 a6 __asm__("a6") = function;
	register u64 a7 __asm__("a7") = extension;

	__asm__ volatile("ecall" : "+r"(a0), "+r"(a1) : "r"(a6), "r"(a7) : "memory");
}

static inline void put(char c)
{
	call_firmware(0x4442434e, 2, (u64)c); /* DBCN, write a byte */
}

/* Each is one instruction, and not idempotent: if it runs twice, the sums show it. */
static inline void add_to(volatile u64 *word, u64 amount)
{
	__asm__ volatile("amoadd.d zero, %1, %0" : "+A"(*word) : "r"(amount) : "memory");
}

static inline void take_from(volatile u64 *word, u64 amount)
{
	add_to(word, -amount);
}

static inline void count_transfer(u64 *transfers)
{
	__asm__ volatile("amoadd.d zero, %1, %0\n\taddi s11, s11, 1"
			 : "+A"(*transfers)
			 : "r"(1UL)
			 : "memory");
}

/*
 * The host holds a vCPU only between two blocks of code. So a block must end here, or no dump would
 * ever show an open journal.
 */
static inline void end_block(void)
{
	__asm__ volatile("j 1f\n1:" ::: "memory");
}

static inline u64 read_clock(void)
{
	u64 now;

	__asm__ volatile("rdtime %0" : "=r"(now));
	return now;
}

/* Interrupts are off: the timer's ends wfi, and is not taken. */
static inline void sleep_ticks(u32 ticks)
{
	u64 end = read_clock() + (u64)ticks * TICK;

	call_firmware(0x54494d45, 0, end); /* TIME, set the timer */
	while (read_clock() < end)
		__asm__ volatile("wfi" ::: "memory");
}

#endif
