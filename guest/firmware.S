/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * firmware.S - a whole guest in its firmware. It adds one to the first word of each page from 1 MiB
 * to the end of its memory (less than 3 GiB), in order, over and over, and counts the rounds at
 * 0x7000. So at any instant these words are equal to that number up to some page, and one less from
 * there on. QEMU gets it with -bios, and maps it to the last 64 KiB below 4 GiB.
 *
 * With the symbol RESTS it halts after each round until the next tick of the PIT, 55 ms after the
 * last: a guest that stores to all of its memory and leaves the processor to others.
 */
	.set	ROUNDS, 0x7000
	.set	STACK, 0x7000		/* downwards */
	.set	COPY, 0x8000
	.set	GATES, 0x9000
	.set	TICK, 0x20		/* vector */
	.set	LINT0, 0xfee00350
	.set	FIRST, 0x100000

	.text
	.org	0
descriptors:
	.quad	0
	.quad	0x00cf9b000000ffff	/* 8: code, 32 bits, 4 GiB */
	.quad	0x00cf93000000ffff	/* 16: data */
to_load:
	.word	. - descriptors - 1
	.long	descriptors
gates_to_load:
	.word	8 * TICK + 7
	.long	GATES

	.code16
start:
	lgdtl	%cs:(to_load - descriptors)
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$8, $protected

	.code32
protected:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	inb	$0x92, %al		/* enable A20 */
	orb	$2, %al
	outb	%al, $0x92
	/* CMOS 0x35, 0x34: memory above 16 MiB in units of 64 KiB, high and low byte. */
	movb	$0x35, %al
	outb	%al, $0x70
	inb	$0x71, %al
	movb	%al, %bh
	movb	$0x34, %al
	outb	%al, $0x70
	inb	$0x71, %al
	movb	%al, %bl
	movzwl	%bx, %ebx
	shll	$16, %ebx
	addl	$0x1000000, %ebx
	cld				/* copy the loop to RAM, where it is faster */
	movl	$loop, %esi
	movl	$COPY, %edi
	movl	$(end - loop), %ecx
	rep movsb
	.ifdef	RESTS
	movl	$STACK, %esp
	movl	$(0x80000 + COPY + tick - loop), GATES + 8 * TICK	/* code segment 8 */
	movl	$0x8e00, GATES + 8 * TICK + 4	/* present, an interrupt gate */
	lidtl	%cs:gates_to_load
	movw	$0x20, %dx		/* the PIC: its vectors, 8086 mode, automatic end */
	movb	$0x11, %al
	outb	%al, %dx
	incw	%dx
	movb	$TICK, %al
	outb	%al, %dx
	movb	$4, %al
	outb	%al, %dx
	movb	$3, %al
	outb	%al, %dx
	movb	$0xfe, %al		/* no line but the PIT's */
	outb	%al, %dx
	movb	$0x34, %al		/* the PIT: a rate generator, 1193182 Hz / 65536 */
	outb	%al, $0x43
	xorb	%al, %al
	outb	%al, $0x40
	outb	%al, $0x40
	movl	$0x700, LINT0		/* the local APIC lets the PIC interrupt */
	.endif
	movl	$COPY, %eax
	jmp	*%eax

loop:					/* position-independent */
	incl	ROUNDS
	movl	$FIRST, %edi
1:	incl	(%edi)
	addl	$4096, %edi
	cmpl	%ebx, %edi
	jb	1b
	.ifdef	RESTS
	sti				/* takes effect behind hlt */
	hlt
	cli
	.endif
	jmp	loop
tick:
	iretl
end:

	.org	0xfff0			/* reset vector */
	.code16
	jmp	start
	.org	0x10000
