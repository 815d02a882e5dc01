/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * firmware.S - a whole guest in its firmware. It adds one to the first word of each page from 1 MiB
 * to the end of its memory (less than 3 GiB), in order, over and over, and counts the rounds at
 * 0x7000. So at any instant these words are equal to that number up to some page, and one less from
 * there on. QEMU gets it with -bios, and maps it to the last 64 KiB below 4 GiB.
 */
	.set	ROUNDS, 0x7000
	.set	COPY, 0x8000
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
	movl	$COPY, %eax
	jmp	*%eax

loop:					/* position-independent */
	incl	ROUNDS
	movl	$FIRST, %edi
1:	incl	(%edi)
	addl	$4096, %edi
	cmpl	%ebx, %edi
	jb	1b
	jmp	loop
end:

	.org	0xfff0			/* reset vector */
	.code16
	jmp	start
	.org	0x10000
