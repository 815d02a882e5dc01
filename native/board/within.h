/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * within.h - the board's own parts. [hart]: on the vCPU's thread, inside. A device that wants to be
 * looked at on that thread calls ldfs_vcpu_set_work(); attend() (hart.c) then looks at all of them.
 */
#ifndef LDFS_BOARD_WITHIN_H
#define LDFS_BOARD_WITHIN_H

#include "base/base.h"
#include "board/board.h"
#include "vcpu/vcpu.h"

/* Privilege levels. */
enum { USER = 0, SUPERVISOR = 1, MACHINE = 3 };

/* Causes of traps (RISC-V Privileged Architecture, scause). */
enum {
	FETCH_ACCESS = 1,
	ILLEGAL_INSTRUCTION = 2,
	BREAKPOINT = 3,
	READ_ACCESS = 5,
	WRITE_ACCESS = 7,
	CALL_FROM_USER = 8,
	FETCH_FAULT = 12,
	READ_FAULT = 13,
	WRITE_FAULT = 15
};

/* Bits of sip, sie and mip. */
enum { SOFTWARE_PENDING = 1 << 1, TIMER_PENDING = 1 << 5, EXTERNAL_PENDING = 1 << 9 };

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

struct plic {
	uint32_t priority[LDFS_BOARD_IRQS + 1];
	uint32_t level;   /* a bit for each source whose line is high */
	uint32_t claimed; /* taken by the guest, and not completed */
	uint32_t enabled;
	uint32_t threshold;
};

struct uart {
	uint8_t ier, lcr, mcr, scratch, dll, dlm;
	bool sent;            /* the transmitter has become empty, and the guest was not told */
	pthread_mutex_t lock; /* the characters that wait */
	uint8_t typed[LDFS_BOARD_TYPED];
	uint64_t put, taken; /* bytes ever */
};

struct rtc {
	uint32_t high; /* read together with the low half */
};

struct clock {
	uint64_t due_ns;          /* [hart] CLOCK_MONOTONIC; UINT64_MAX: no timer is set */
	_Atomic uint64_t wake_ns; /* for the thread: set WORK then */
	_Atomic uint32_t stop;
	struct ldfs_event changed;
	pthread_t thread;
	bool has_thread;
	_Atomic uint64_t ticks;
};

#define QUEUE_SIZE 128u
#define SEGMENTS 64u
#define SEGMENT_SIZE (1u << 16)
/* Of requests that are under way, beyond the first: so much memory of ours a guest may take, and so
 * much is copied at most before the hart can be held. */
#define BYTES_MOST (UINT64_C(16) << 20)

struct segment {
	uint8_t *at;
	uint32_t size;
};

/* One request of the disk, from the queue and back. */
struct job {
	uint32_t generation; /* of the device when it was taken */
	uint16_t head;
	uint8_t kind, status; /* VIRTIO_BLK_T_..., VIRTIO_BLK_S_... */
	uint64_t sector;
	uint64_t size; /* bytes of all segments */
	uint32_t segment_count;
	struct segment segments[SEGMENTS];
	uint8_t *status_at;
	uint8_t *bounce; /* of a read; armed memory is never given to a system call */
	struct job *next;
};

struct jobs {
	struct job *first, **last;
};

#define FEATURE_PAGES 2 /* of 32 features each, that are looked at */

struct disk {
	int fd;
	uint64_t sectors;
	bool read_only;
	uint32_t features_page, driver_page, queue, status, interrupt, generation;
	uint32_t accepted[FEATURE_PAGES]; /* by the driver; no more after FEATURES_OK */
	bool accepted_beyond;             /* one of a page that no device of ours has */
	uint32_t ready, size;             /* of queue 0, which is the only one */
	uint64_t descriptors, driver_ring, device_ring; /* physical addresses */
	uint16_t seen, used;
	uint32_t under_way;       /* requests that the thread has, or has done */
	uint64_t bytes_under_way; /* of them */
	bool waits;               /* requests are in the queue for which there was no room */
	bool broken;              /* the guest's queue made no sense: it must reset the device */

	pthread_mutex_t lock; /* what follows */
	struct jobs asked, done;
	bool stop;
	struct ldfs_event asked_changed, ended_changed;
	_Atomic uint32_t ended; /* the thread no longer touches this struct */
	pthread_t thread;
	bool has_thread;
	_Atomic uint64_t reads, writes, errors;
};

/* A page fault that Unicorn leaves emulation for. */
struct fault {
	bool is; /* since emulation was entered */
	uint64_t cause, pc, page;
};

enum wish { WISH_NONE, WISH_REBOOT, WISH_OFF, WISH_FAIL };

struct ldfs_board {
	ldfs_machine *machine;
	struct ldfs_vcpu *hart;
	uint8_t *ram;
	uint64_t ram_size, entry, told;
	ldfs_boot_part parts[LDFS_BOARD_PARTS];
	uint32_t part_count;
	bool started;

	bool raw;        /* addresses are physical for now: translated code is being dropped */
	bool breakpoint; /* emulation ends because of one, which was handled */
	bool attending, interrupted; /* a line of mip was raised, and Unicorn has not looked */
	struct fault fault;
	enum wish wish;
	_Atomic uint32_t off, boots;

	struct plic plic;
	struct uart uart;
	struct rtc rtc;
	struct clock clock;
	struct disk disk;
};

/* --------------------------------------------------------------- hart.c [hart] */
extern const struct ldfs_vcpu_kind ldfs_board_kind;
/* The registers of a hart that has just been switched on, and the boot parts in memory. */
void ldfs_hart_reset(struct ldfs_board *b);

/* -------------------------------------------------------------- lines.c [hart] */
uint64_t ldfs_hart_get(struct ldfs_board *b, int reg);
void ldfs_hart_set(struct ldfs_board *b, int reg, uint64_t value);
/* General register 0 to 31; writes to register 0 are dropped. */
uint64_t ldfs_hart_x(struct ldfs_board *b, uint32_t number);
void ldfs_hart_set_x(struct ldfs_board *b, uint32_t number, uint64_t value);
/* Raise or lower lines of mip. */
void ldfs_hart_pending(struct ldfs_board *b, uint32_t lines, bool high);

/* ---------------------------------------------------------------- mmu.c [hart] */

/* The guest's memory at a physical address, if `size` bytes of RAM are there; else NULL. */
uint8_t *ldfs_ram_at(struct ldfs_board *b, uint64_t address, uint64_t size);
/*
 * Translate a virtual address for the access at that privilege. 0: *physical is set, and *rights
 * has Unicorn's rights that the page gives (with a write only if it is marked dirty); else the
 * cause of the trap.
 */
uint64_t ldfs_mmu_translate(struct ldfs_board *b, uint64_t address, enum access access,
			    uint64_t privilege, uint64_t *physical, uint32_t *rights);
bool ldfs_mmu_on_tlb_fill(ldfs_uc *uc, uint64_t address, int type, struct ldfs_uc_tlb_entry *result,
			  void *user);
/* A device stores to [at, at + size) of the guest's memory: code translated from there is void. */
void ldfs_mmu_stores(struct ldfs_board *b, const uint8_t *at, uint64_t size);
/* Copy to the guest's memory, as a device does. */
void ldfs_mmu_copy(struct ldfs_board *b, uint8_t *at, const void *from, uint64_t size);
/* The instruction at a virtual address, as far as it can be read; 0 if it cannot. */
uint32_t ldfs_mmu_instruction(struct ldfs_board *b, uint64_t pc, uint64_t privilege);

/* --------------------------------------------------------------- trap.c [hart] */

/* Enter the supervisor's trap handler, from the instruction at `pc`; without one it fails. */
void ldfs_trap(struct ldfs_board *b, uint64_t cause, uint64_t pc, uint64_t value);
/* Unicorn has left emulation for b->fault. */
void ldfs_trap_fault(struct ldfs_board *b);
void ldfs_trap_on_exception(ldfs_uc *uc, uint32_t number, void *user);
bool ldfs_trap_on_breakpoint(ldfs_uc *uc, void *user);

/* ---------------------------------------------------------------- sbi.c [hart] */
void ldfs_sbi_call(struct ldfs_board *b);

/* -------------------------------------------------------------------- clock.c */
uint64_t ldfs_clock_now(void); /* [any thread] ticks of LDFS_BOARD_TIMEBASE */
/* [hart] Set the timer to that tick; UINT64_MAX: none. */
void ldfs_clock_set(struct ldfs_board *b, uint64_t tick);
/* [hart] Raise the timer's line if its time has come. */
void ldfs_clock_attend(struct ldfs_board *b);
int ldfs_clock_start(struct ldfs_board *b); /* [owner] */
void ldfs_clock_stop(struct ldfs_board *b); /* [owner] */

/* --------------------------------------------------------------- plic.c [hart] */
void ldfs_plic_line(struct ldfs_board *b, uint32_t irq, bool high);
uint64_t ldfs_plic_read(ldfs_uc *uc, uint64_t offset, unsigned int size, void *user);
void ldfs_plic_write(ldfs_uc *uc, uint64_t offset, unsigned int size, uint64_t value, void *user);

/* ------------------------------------------------------------- serial.c [hart] */
void ldfs_serial_attend(struct ldfs_board *b);
/* The oldest character that waits, -1: none does. */
int ldfs_serial_take(struct ldfs_board *b);
uint64_t ldfs_serial_read(ldfs_uc *uc, uint64_t offset, unsigned int size, void *user);
void ldfs_serial_write(ldfs_uc *uc, uint64_t offset, unsigned int size, uint64_t value, void *user);
uint64_t ldfs_rtc_read(ldfs_uc *uc, uint64_t offset, unsigned int size, void *user);
void ldfs_rtc_write(ldfs_uc *uc, uint64_t offset, unsigned int size, uint64_t value, void *user);

/* ----------------------------------------------------------- features.c [hart] */
#define LDFS_FEATURES_OK 8u /* a bit of the status: both agree */
uint32_t ldfs_features_offered(const struct disk *k, uint32_t page);
void ldfs_features_accept(struct disk *k, uint32_t page, uint32_t accepted);
/* The status that is to be when the driver stores `asked`, which is not 0. */
uint32_t ldfs_features_status(const struct disk *k, uint32_t asked);

/* ------------------------------------------------------------- virtio.c [hart] */
uint64_t ldfs_virtio_read(ldfs_uc *uc, uint64_t offset, unsigned int size, void *user);
void ldfs_virtio_write(ldfs_uc *uc, uint64_t offset, unsigned int size, uint64_t value, void *user);
void ldfs_virtio_reset(struct ldfs_board *b);
/* Give back what the disk has done. */
void ldfs_virtio_attend(struct ldfs_board *b);

/* --------------------------------------------------------------------- disk.c */
int ldfs_disk_start(struct ldfs_board *b); /* [owner] */
/* [owner] Finish what was asked; false: not by the deadline. */
bool ldfs_disk_stop(struct ldfs_board *b, uint64_t deadline_ns);
void ldfs_disk_ask(struct ldfs_board *b, struct job *job); /* [hart] */
struct job *ldfs_disk_take_done(struct ldfs_board *b);     /* [hart] NULL: none */
void ldfs_job_free(struct job *job);

#endif
