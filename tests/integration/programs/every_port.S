/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Any value, of each size, to every port. */
	.globl _start
_start:
	mov $0x9e3779b9, %ebx
	xor %edx, %edx
1:	imul $1664525, %ebx, %ebx
	add $1013904223, %ebx
	mov %ebx, %eax
	outb %al, %dx
	outw %ax, %dx
	outl %eax, %dx
	inb %dx, %al
	inw %dx, %ax
	inl %dx, %eax
	inc %dx
	jnz 1b
	movl $1, 0x200000
	cli
	hlt
	.section .note.GNU-stack
