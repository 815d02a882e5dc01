/* SPDX-License-Identifier: GPL-2.0-or-later */
/* start.S - entry of every vCPU: a stack of its own, then kmain(boot parameters). */
#include "boot.h"

#define STACK_SIZE 16384
#define PARAMS_VCPU 12 /* offset of boot_params.vcpu */

	.section .text.start, "ax"
	.globl _start
	.type _start, @function
_start:
	.cfi_startproc
	.cfi_undefined rip		/* backtraces end here */
	movl	PARAMS_VCPU(%rdi), %eax
	andl	$(BOOT_VCPUS_MAX - 1), %eax
	incl	%eax
	imull	$STACK_SIZE, %eax, %eax
	leaq	stacks(%rax), %rsp
	xorl	%ebp, %ebp
	call	kmain
1:	cli
	hlt
	jmp	1b
	.cfi_endproc
	.size _start, . - _start

	.bss
	.balign 4096
	.globl stacks
	.type stacks, @object
stacks:
	.skip	STACK_SIZE * BOOT_VCPUS_MAX
	.size stacks, . - stacks

	.section .note.GNU-stack, "", @progbits
