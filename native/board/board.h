/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * board.h - a RISC-V computer on which Linux runs: one hart, and the devices that it needs.
 *
 * It offers a machine of vcpu/ whose vCPU has page tables, an SBI firmware made of C, a clock, an
 * interrupt controller (PLIC), a serial line (16550), a real-time clock (goldfish) and one disk
 * (virtio-mmio). All of them but the disk's and the clock's threads run on the vCPU's own thread,
 * while it is inside (vcpu/vcpu.h), and no other thread stores to the guest's memory: to hold the
 * vCPU is to hold every writer. It refuses to know arenas and dumps, files of kernels and device
 * trees.
 *
 * The functions of ldfs.h, `ldfs_machine_...`, work for its machine, too.
 */
#ifndef LDFS_BOARD_H
#define LDFS_BOARD_H

#include "ldfs.h"

/* cffi: begin */

/* Where the devices are: physical addresses, and numbers at the interrupt controller. */
#define LDFS_BOARD_RTC 0x101000
#define LDFS_BOARD_PLIC 0xc000000
#define LDFS_BOARD_PLIC_SIZE 0x400000
#define LDFS_BOARD_UART 0x10000000
#define LDFS_BOARD_DISK 0x10001000
#define LDFS_BOARD_DEVICE_SIZE 0x1000 /* of all but the PLIC */
#define LDFS_BOARD_RAM 0x80000000
#define LDFS_BOARD_DISK_IRQ 1
#define LDFS_BOARD_UART_IRQ 10
#define LDFS_BOARD_RTC_IRQ 11
#define LDFS_BOARD_IRQS 15           /* the highest number */
#define LDFS_BOARD_TIMEBASE 10000000 /* ticks of the clock a second */
#define LDFS_BOARD_PARTS 16
#define LDFS_BOARD_TYPED 4096 /* characters that wait to be read by the guest */

typedef struct ldfs_board ldfs_board;

/* What lies in memory when the guest starts: `size` bytes at the physical address. */
typedef struct ldfs_boot_part {
	uint64_t address;
	const void *bytes;
	uint64_t size;
} ldfs_boot_part;

typedef struct ldfs_board_plan {
	uint64_t ram_size; /* bytes from LDFS_BOARD_RAM on, whole pages */
	uint64_t entry;    /* physical address of the kernel's first instruction */
	uint64_t told;     /* what the kernel finds in a1: where its device tree is */
	const ldfs_boot_part *parts;
	uint32_t part_count; /* at most LDFS_BOARD_PARTS; their bytes are read at each (re)boot */
	uint32_t read_only;  /* 1: the guest must not write to the disk */
	int32_t disk;        /* file descriptor, which stays the caller's; -1: there is no disk */
	uint32_t reserved;
	uint64_t disk_size; /* bytes, a multiple of 512 */
} ldfs_board_plan;

typedef struct ldfs_board_status {
	uint32_t off;        /* 1: the guest has switched itself off */
	uint32_t boots;      /* 1, and 1 more for each reboot */
	uint64_t ticks;      /* timer interrupts that were raised */
	uint64_t disk_reads; /* requests that are done */
	uint64_t disk_writes;
	uint64_t disk_errors;
} ldfs_board_status;

/*
 * [owner] Make a board on the memory at `ram`; see ldfs_machine_create for `library`, `why` and the
 * errors. -EINVAL also: a part outside RAM. Nothing is copied before the machine starts. The
 * machine is freed by ldfs_board_destroy, and by nothing else.
 */
int ldfs_board_create(const char *library, void *ram, const ldfs_board_plan *plan, ldfs_board **out,
		      char *why, size_t why_size);
/* [any thread] The machine for ldfs_machine_...; as long as the board exists. */
ldfs_machine *ldfs_board_machine(ldfs_board *b);
/* [owner] As ldfs_machine_start. */
int ldfs_board_start(ldfs_board *b);
/* [owner] As ldfs_machine_stop, and the board's own threads; requests of the disk are finished. */
int ldfs_board_stop(ldfs_board *b, uint64_t deadline_ns);
/* [owner] As ldfs_machine_destroy. */
int ldfs_board_destroy(ldfs_board *b);
/* [any thread] Type all of the bytes. -EAGAIN: the guest has not read enough of those before. */
int ldfs_board_type(ldfs_board *b, const uint8_t *bytes, uint64_t size);
/* [any thread] */
void ldfs_board_status_of(ldfs_board *b, ldfs_board_status *out);

/* cffi: end */

#endif
