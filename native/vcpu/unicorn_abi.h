/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * unicorn_abi.h - the part of Unicorn 2's C interface that is used here.
 *
 * The library is found at run time, in the Python package that the machine is installed with, so
 * the build needs nothing of Unicorn. The numbers are part of its stable interface; a test compiles
 * this header together with Unicorn's own (unicorn/unicorn.h) and compares them.
 */
#ifndef LDFS_UNICORN_ABI_H
#define LDFS_UNICORN_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct uc_struct ldfs_uc;

enum {
	LDFS_UC_API_MAJOR = 2,
	LDFS_UC_ARCH_X86 = 4,
	LDFS_UC_ARCH_RISCV = 8,
	LDFS_UC_MODE_64 = 1 << 3,
	LDFS_UC_MODE_RISCV64 = 1 << 3,
	LDFS_UC_PROT_READ = 1,
	LDFS_UC_PROT_WRITE = 2,
	LDFS_UC_PROT_EXEC = 4,
	LDFS_UC_PROT_ALL = 7,

	LDFS_UC_ERR_OK = 0,
	LDFS_UC_ERR_NOMEM = 1,
	LDFS_UC_ERR_EXCEPTION = 21,

	LDFS_UC_HOOK_INTR = 1 << 0,
	LDFS_UC_HOOK_INSN = 1 << 1,
	LDFS_UC_HOOK_BLOCK = 1 << 3,
	LDFS_UC_HOOK_MEM_UNMAPPED = 0x7 << 4, /* read, write, fetch */
	LDFS_UC_HOOK_INSN_INVALID = 1 << 14,
	LDFS_UC_HOOK_TLB_FILL = 1 << 17,

	LDFS_UC_X86_INS_IN = 218,
	LDFS_UC_X86_INS_OUT = 500,

	LDFS_UC_CTL_UC_USE_EXITS = 4,
	LDFS_UC_CTL_TB_REMOVE_CACHE = 9,
	LDFS_UC_CTL_TB_FLUSH = 10,
	LDFS_UC_CTL_TLB_FLUSH = 11,
	LDFS_UC_CTL_TLB_TYPE = 12,
	LDFS_UC_CTL_TCG_BUFFER_SIZE = 13,
	LDFS_UC_TLB_VIRTUAL = 1,

	LDFS_UC_MEM_READ = 16,
	LDFS_UC_MEM_WRITE = 17,
	LDFS_UC_MEM_FETCH = 18,
	LDFS_UC_MEM_READ_UNMAPPED = 19,
	LDFS_UC_MEM_WRITE_UNMAPPED = 20,
	LDFS_UC_MEM_FETCH_UNMAPPED = 21,
};

/* The control argument of uc_ctl() for a write without an argument, with one, and with two. */
#define LDFS_UC_CTL_WRITE_0(type) ((int)((uint32_t)(type) | 1u << 30))
#define LDFS_UC_CTL_WRITE_1(type) ((int)((uint32_t)(type) | 1u << 26 | 1u << 30))
#define LDFS_UC_CTL_WRITE_2(type) ((int)((uint32_t)(type) | 2u << 26 | 1u << 30))

enum {
	LDFS_UC_X86_REG_CS = 11,
	LDFS_UC_X86_REG_DS = 17,
	LDFS_UC_X86_REG_EFLAGS = 25,
	LDFS_UC_X86_REG_ES = 28,
	LDFS_UC_X86_REG_FS = 32,
	LDFS_UC_X86_REG_GS = 33,
	LDFS_UC_X86_REG_RAX = 35,
	LDFS_UC_X86_REG_RBP = 36,
	LDFS_UC_X86_REG_RBX = 37,
	LDFS_UC_X86_REG_RCX = 38,
	LDFS_UC_X86_REG_RDI = 39,
	LDFS_UC_X86_REG_RDX = 40,
	LDFS_UC_X86_REG_RIP = 41,
	LDFS_UC_X86_REG_RSI = 43,
	LDFS_UC_X86_REG_RSP = 44,
	LDFS_UC_X86_REG_SS = 49,
	LDFS_UC_X86_REG_R8 = 106,
	LDFS_UC_X86_REG_R9 = 107,
	LDFS_UC_X86_REG_R10 = 108,
	LDFS_UC_X86_REG_R11 = 109,
	LDFS_UC_X86_REG_R12 = 110,
	LDFS_UC_X86_REG_R13 = 111,
	LDFS_UC_X86_REG_R14 = 112,
	LDFS_UC_X86_REG_R15 = 113,
	LDFS_UC_X86_REG_FS_BASE = 250,
	LDFS_UC_X86_REG_GS_BASE = 251,
};

enum {
	LDFS_UC_RISCV_REG_X0 = 1,
	LDFS_UC_RISCV_REG_MEDELEG = 118,
	LDFS_UC_RISCV_REG_MIDELEG = 119,
	LDFS_UC_RISCV_REG_MIE = 120,
	LDFS_UC_RISCV_REG_MIP = 131,
	LDFS_UC_RISCV_REG_SSTATUS = 133,
	LDFS_UC_RISCV_REG_SIE = 136,
	LDFS_UC_RISCV_REG_STVEC = 137,
	LDFS_UC_RISCV_REG_SSCRATCH = 139,
	LDFS_UC_RISCV_REG_SEPC = 140,
	LDFS_UC_RISCV_REG_SCAUSE = 141,
	LDFS_UC_RISCV_REG_STVAL = 142,
	LDFS_UC_RISCV_REG_SIP = 143,
	LDFS_UC_RISCV_REG_SATP = 146,
	LDFS_UC_RISCV_REG_PC = 190,
	LDFS_UC_RISCV_REG_PRIV = 191,
};

/* The result that a hook of UC_HOOK_TLB_FILL fills in. */
struct ldfs_uc_tlb_entry {
	uint64_t paddr;
	int perms;
};

/* Unicorn's functions without their prefix; in its ABI enums are ints, and handles pointers. */
struct ldfs_uc_api {
	unsigned int (*version)(unsigned int *major, unsigned int *minor);
	int (*open)(int arch, int mode, ldfs_uc **uc);
	int (*close)(ldfs_uc *uc);
	int (*ctl)(ldfs_uc *uc, int control, ...);
	int (*mem_map_ptr)(ldfs_uc *uc, uint64_t address, uint64_t size, uint32_t perms, void *ptr);
	int (*mmio_map)(ldfs_uc *uc, uint64_t address, uint64_t size,
			uint64_t (*read)(ldfs_uc *uc, uint64_t offset, unsigned int size,
					 void *user),
			void *read_user,
			void (*write)(ldfs_uc *uc, uint64_t offset, unsigned int size,
				      uint64_t value, void *user),
			void *write_user);
	int (*hook_add)(ldfs_uc *uc, size_t *hook, int type, void *callback, void *user,
			uint64_t begin, uint64_t end, ...);
	int (*reg_write)(ldfs_uc *uc, int reg, const void *value);
	int (*reg_read)(ldfs_uc *uc, int reg, void *value);
	int (*emu_start)(ldfs_uc *uc, uint64_t begin, uint64_t until, uint64_t timeout,
			 size_t count);
	int (*emu_stop)(ldfs_uc *uc);
	const char *(*strerror)(int error);
};

#endif
