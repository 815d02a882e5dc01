/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code that changes itself: ahead, across two pages, at the very next instruction. */
	.globl _start
_start:
	.macro check wrong
	cmp %r15d, %eax
	je .Lright\@
	inc \wrong
.Lright\@:
	.endm

	mov $0x300000, %rbx
	movb $0xb8, (%rbx)		/* mov $..., %eax */
	movb $0xc3, 5(%rbx)		/* ret */
	movb $0xb8, 0xffd(%rbx)		/* once more, across two pages */
	movb $0xc3, 0x1002(%rbx)
	mov $0x310000, %esp
	lea .Lnext+1(%rip), %rdx
.Lloop:
	inc %r15
	mov %r15d, 1(%rbx)
	call *%rbx
	check %r12
	mov %r15d, 0xffe(%rbx)
	lea 0xffd(%rbx), %rax
	call *%rax
	check %r13
	mov %r15d, (%rdx)
.Lnext:	mov $0, %eax			/* the very next instruction */
	check %r14
	mov %r15, 64(%rbx)		/* data on both pages of code */
	mov 64(%rbx), %rax
	mov %r15, 0x1040(%rbx)
	test $7, %r15b
	jnz .Lloop
	mov $0x400000, %edi		/* Unicorn forgets which pages it has looked up */
	mov $900, %ecx
.Lpages: mov %r15, (%rdi)
	add $4096, %rdi
	loop .Lpages
	mov %r15, 72(%rbx)		/* and meets them again as data */
	mov 0x1048(%rbx), %rax
	mov %r15, 0x1048(%rbx)
	cmp $10000, %r15
	jb .Lloop
	cli
	hlt
	.section .note.GNU-stack
