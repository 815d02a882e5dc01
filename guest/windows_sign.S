/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * windows_sign.S - a whole guest in its firmware, with what tells 64-bit Windows to livedumpfs and to
 * elf2dmp, and nothing else of it: in long mode, KUSER_SHARED_DATA at its virtual address, an IDT,
 * and below its first handler an image with the name of a kernel's symbols. It counts at 0x7000.
 * QEMU gets it with -bios, and maps it to the last 64 KiB below 4 GiB.
 */
	.set	ROUNDS, 0x7000
	.set	TOP, 0x10000		/* page tables: of addresses that are physical ones, */
	.set	LOW, 0x11000
	.set	HIGH, 0x12000		/* and of those from SHARED on */
	.set	DIRECTORY, 0x13000
	.set	PAGES, 0x14000
	.set	SHARED_PAGE, 0x15000	/* the pages: KUSER_SHARED_DATA, image, IDT, KPCR */
	.set	IMAGE_PAGE, 0x16000
	.set	IDT_PAGE, 0x17000
	.set	KPCR_PAGE, 0x18000
	.set	SHARED_INDEX, 495	/* of 0xfffff78000000000 in the top table */
	.set	LOADED, 0x20000		/* the code and data below, copied to RAM */

	.text
	.org	0
descriptors:
	.quad	0
	.quad	0x00cf9b000000ffff	/* 8: code, 32 bits, 4 GiB */
	.quad	0x00cf93000000ffff	/* 16: data */
	.quad	0x00af9b000000ffff	/* 24: code, 64 bits */
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
	cld
	movl	$loaded, %esi
	movl	$LOADED, %edi
	movl	$(end - loaded), %ecx
	rep movsb

	movl	$(LOW + 3), TOP
	movl	$0x83, LOW		/* a page of 1 GiB: -cpu max has them */
	movl	$(0xc0000000 + 0x83), LOW + 3 * 8	/* the firmware itself */
	movl	$(HIGH + 3), TOP + SHARED_INDEX * 8
	movl	$(DIRECTORY + 3), HIGH
	movl	$(PAGES + 3), DIRECTORY
	movl	$(SHARED_PAGE + 3), PAGES
	movl	$(IMAGE_PAGE + 3), PAGES + 8
	movl	$(IDT_PAGE + 3), PAGES + 16
	movl	$(KPCR_PAGE + 3), PAGES + 24
	movl	$(LOADED + root - loaded), %esi
	movl	$(SHARED_PAGE + 0x30), %edi
	movl	$(root_end - root), %ecx
	rep movsb
	movl	$1, SHARED_PAGE + 0x264	/* NtProductType */
	movl	$(LOADED + image - loaded), %esi
	movl	$IMAGE_PAGE, %edi
	movl	$(end - image), %ecx
	rep movsb
	/* IDT[0]: a handler in the image, at 0xfffff78000001800 */
	movl	$(24 << 16 | 0x1800), IDT_PAGE
	movl	$0x8e00, IDT_PAGE + 4
	movl	$0xfffff780, IDT_PAGE + 8

	movl	%cr4, %eax
	orl	$(1 << 5), %eax		/* PAE */
	movl	%eax, %cr4
	movl	$TOP, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orl	$(1 << 8), %eax
	wrmsr
	movl	$0xc0000102, %ecx	/* KERNEL_GS_BASE */
	movl	$0x3000, %eax
	movl	$0xfffff780, %edx
	wrmsr
	movl	$0xc0000101, %ecx	/* GS_BASE */
	wrmsr
	movl	%cr0, %eax
	orl	$(1 << 31), %eax
	movl	%eax, %cr0
	ljmpl	$24, $(LOADED + long_mode - loaded)

loaded:
long_mode:				/* 64 bits */
	.byte	0x48, 0xb8		/* mov $address, %rax */
	.quad	LOADED + idt - loaded
	.byte	0x0f, 0x01, 0x18	/* lidt (%rax) */
1:	.byte	0xff, 0x04, 0x25	/* incl ROUNDS */
	.long	ROUNDS
	jmp	1b
idt:
	.word	0xfff
	.quad	0xfffff78000002000
root:
	.string16 "C:\\Windows"
root_end:
image:					/* a PE image with a debug directory */
	.ascii	"MZ"
	.org	image + 0x3c
	.long	0x80
	.org	image + 0x80
	.ascii	"PE\0\0"
	.word	0x8664
	.org	image + 0x80 + 24
	.word	0x20b
	.org	image + 0x80 + 24 + 112 + 6 * 8
	.long	0x400, 28
	.org	image + 0x400
	.org	image + 0x400 + 12
	.long	2, debug_end - debug, 0x440
	.org	image + 0x440
debug:
	.ascii	"RSDS"
	.fill	16, 1, 0x5a
	.long	1
	.asciz	"ntkrnlmp.pdb"
debug_end:
end:

	.org	0xfff0			/* reset vector */
	.code16
	jmp	start
	.org	0x10000
