/* SPDX-License-Identifier: GPL-2.0-or-later */
/* start.S - entry of the hart: a stack of its own, then kmain(boot parameters). */
#include "boot.h"

#define STACK_SIZE 16384
#define TIMER_INTERRUPT 0x20 /* a bit of sie */

	.section .text.start, "ax"
	.globl _start
	.type _start, @function
_start:
	.cfi_startproc
	.cfi_undefined ra		/* backtraces end here */
	lla	sp, stack + STACK_SIZE
	lla	t0, exception
	csrw	stvec, t0
	li	t0, TIMER_INTERRUPT
	csrw	sie, t0
	mv	a0, a1
	li	s0, 0
	call	kmain
switch_off:
	li	a7, 0x53525354		/* SRST, shutdown */
	li	a6, 0
	li	a0, 0
	li	a1, 0
	ecall
1:	j	1b
	.cfi_endproc
	.size _start, . - _start

	/* There is none but by a mistake of this program, or of what runs it. */
	.balign 4
exception:
	lla	sp, stack + STACK_SIZE
	csrr	a0, scause
	csrr	a1, sepc
	csrr	a2, stval
	call	report_exception
	j	switch_off

	.bss
	.balign 4096
stack:
	.skip	STACK_SIZE
	.size stack, . - stack

	.section .note.GNU-stack, "", @progbits
