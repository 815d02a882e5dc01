/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stores at the end of high memory, by the parameters in (%rdi). */
	.globl _start
_start:
	mov (%rdi), %rax
	mov 72(%rdi), %rbx
	mov 80(%rdi), %rcx
	push %rax
	pop %rdx
	movq $0x1234, -8(%rbx,%rcx)
	cli
	hlt
	.section .note.GNU-stack
