/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * boot.h - what the host tells a guest, and where; for the built-in guest and for any other.
 *
 * A guest is a static ELF64 program. Its memory below the start of RAM + BOOT_END belongs to the
 * host's loader; a guest's segments must lie above.
 *
 * On x86-64 RAM begins at 0. Memory is flat, in 64-bit mode: each address is a physical address,
 * there are no page tables, no interrupt table and no devices but the console. vCPU i starts at the
 * ELF entry with
 *     rdi  the address of its struct boot_params, BOOT_PARAMS + i * BOOT_PARAMS_STRIDE
 *     rsp  BOOT_STACK_TOP - i * BOOT_STACK_SIZE, a small stack to begin with
 *     all other registers 0, interrupts off.
 * Console: write bytes to port 0xe9 or 0x3f8. IN from 0xe9 gives 0xe9 (the console is there), from
 * 0x3fd 0x60 (the serial line may send).
 * hlt with interrupts on sleeps until the next tick (every 1 ms) and continues behind the hlt; no
 * interrupt handler is called. hlt with interrupts off ends the vCPU. An exception or an access
 * outside RAM ends it as "failed". Locked instructions are not atomic against other vCPUs. There is
 * no AVX, but not every AVX instruction is refused: build with -mno-avx.
 *
 * On riscv64 RAM begins at 0x80000000, on the board of docs/linux.md with its devices. There is one
 * vCPU, which starts at the ELF entry in S-mode, without page tables, with
 *     a1   the address of its struct boot_params, the start of RAM + BOOT_PARAMS
 *     all other registers 0, interrupts off: the guest makes its own stack.
 * Console: SBI's DBCN, or the serial line. wfi sleeps until the timer of SBI's TIME, or a device,
 * has an interrupt. SRST ends the vCPU, or loads the segments again; the guest clears its own .bss
 * then. An exception goes to stvec; while that is 0 it ends the vCPU as "failed".
 */
#ifndef BOOT_H
#define BOOT_H

#define BOOT_PARAMS 0x1000
#define BOOT_PARAMS_STRIDE 256
#define BOOT_STACK_TOP 0x10000
#define BOOT_STACK_SIZE 0x3000
#define BOOT_END 0x10000

#define BOOT_MAGIC 0x544f4f425346444c /* "LDFSBOOT" */
#define BOOT_VERSION 1
#define BOOT_VCPUS_MAX 4
#define BOOT_RANGES 4
#define BOOT_ALL_PAGES 65536

#ifndef __ASSEMBLER__

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

struct boot_range {
	u64 start; /* bytes */
	u64 size;  /* bytes */
};

/* Written by the host before start, except `ledger`. */
struct boot_params {
	u64 magic;
	u32 version;
	u32 vcpu; /* number of this vCPU, from 0 */
	u32 vcpus;
	u32 ranges;      /* ranges of RAM in `range`, sorted */
	u64 ram_size;    /* bytes, sum of the ranges */
	u64 seed;        /* seed of random choices; each vCPU gets another one */
	u32 dirty_share; /* share of RAM to write to, in 1/65536 */
	u32 burst;       /* transfers between two sleeps; 0: never sleep */
	u32 ticks;       /* ticks that a sleep lasts */
	u32 reserved;
	struct boot_range range[BOOT_RANGES];
	u64 ledger; /* written by the built-in guest: address of its struct ledger */
};

_Static_assert(sizeof(struct boot_params) == 128, "the host has the same layout");

#endif
#endif
