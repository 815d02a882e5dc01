/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Prints more than the console keeps. */
	.globl _start
_start:
	mov $200000, %ecx
	mov $'a', %al
1:	outb %al, $0xe9
	inc %al
	cmp $'z', %al
	jbe 2f
	mov $'\n', %al
	outb %al, $0xe9
	mov $'a', %al
2:	loop 1b
	mov $0x3fd, %dx
	inb %dx, %al
	mov %al, %bl
	mov $0x3f8, %dx
	mov $'!', %al
	outb %al, %dx
	cli
	hlt
	.section .note.GNU-stack
