/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Nearly nothing here may run twice, or stop halfway, without another result: in rbx, and in
 * memory from 0x200000 + 1 MiB * vCPU. (%rbp) and r15 count the rounds. */
	.globl _start
_start:
	mov 12(%rdi), %eax
	shl $20, %eax
	lea 0x200000(%rax), %rbp
	lea 0x80000(%rbp), %rsp
	lea 1(%rax), %rbx
.Lround:
	incq (%rbp)
	inc %r15
	imul $0x41c64e6d, %rbx, %rbx
	add $12345, %rbx
	mov %rbx, %rax
	shr $20, %rax
	and $0x3fff, %eax
	lea 0x10000(%rbp,%rax), %rsi	/* any byte of five pages */
	add %rbx, (%rsi)
	xor %r15, 13(%rsi)
	xchg %rbx, 64(%rsi)
	lock xadd %rbx, 8(%rbp)
	push %rbx
	call .Ladd
	pop %rdx
	adc %rdx, 16(%rbp)
	lea 24(%rbp), %rdi		/* one byte that walks through those behind it */
	lea 23(%rbp), %rsi
	mov %r15, -1(%rdi)
	mov $200, %ecx
	cld
	rep movsb
	.set word, 0
	.rept 300			/* a long block without a jump */
	rolq $3, 0x400+word(%rbp)
	addq %rbx, 0x400+word(%rbp)
	.set word, word + 8
	.endr
	mov 0x400+2392(%rbp), %rax
	xor %rax, %rbx
	test $511, %r15d
	jnz .Lround
	mov $'.', %al
	outb %al, $0xe9
	test $1023, %r15d
	jnz .Lround
	sti
	hlt
	cli
	cmp $20480, %r15
	jb .Lround
	hlt
.Ladd:	add %rbx, 8(%rsp)
	sbbq %rbx, 32(%rbp)
	ret
	.section .note.GNU-stack
