/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hostile.h - what the parts of hostile_board share. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "board/within.h"

#define RAM_SIZE (UINT64_C(8) << 20)
#define GUARD (UINT64_C(1) << 20)
#define SECTOR 512u
#define SECTORS 256u /* of the disk; the file is twice as long */
#define REQUEST_MOST ((uint64_t)SEGMENTS * SEGMENT_SIZE)
#define PATIENCE_NS UINT64_C(60000000000)

/* Where the guest has its queue when it is honest, and what is read and written then. */
enum {
	TABLE = 0x100000,
	AVAILABLE = 0x101000,
	USED = 0x102000,
	HEADER = 0x103000,
	DATA = 0x104000
};
enum { NEXT = 1, WRITABLE = 2 };
enum { KIND_READ = 0, KIND_WRITE = 1, KIND_FLUSH = 4, KIND_ID = 8 };

#define check(condition)                                                       \
	do {                                                                   \
		if (!(condition)) {                                            \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			fflush(stdout);                                        \
			_exit(1);                                              \
		}                                                              \
	} while (0)

typedef uint64_t (*mmio_read)(ldfs_uc *, uint64_t, unsigned int, void *);
typedef void (*mmio_write)(ldfs_uc *, uint64_t, unsigned int, uint64_t, void *);

struct uc_struct {
	uint64_t registers[256];
	bool stopped;
	void (*on_block)(ldfs_uc *, uint64_t, uint32_t, void *);
	void *block_user;
	void (*on_exception)(ldfs_uc *, uint32_t, void *);
	bool (*on_invalid)(ldfs_uc *, void *);
	bool (*on_tlb_fill)(ldfs_uc *, uint64_t, int, struct ldfs_uc_tlb_entry *, void *);
	struct {
		uint64_t begin, size;
		mmio_read read;
		mmio_write write;
	} devices[4];
	int device_count;
};

/* ------------------------------------------------------------ hostile_board.c */
extern struct ldfs_board *board;
extern uint8_t *ram;
extern bool read_only;
extern uint64_t random_state, turns_left;
/* How often it happened. */
extern _Atomic uint64_t faults, broken, honest_reads, honest_writes, translated, trapped, held;
extern _Atomic pid_t hart_tid;

static inline uint64_t draw(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static inline uint64_t below(uint64_t n)
{
	return (draw() >> 11) % n;
}

static inline bool one_in(uint64_t n)
{
	return below(n) == 0;
}

/* -------------------------------------------------------------------- guest.c */
/* One thing that it does. The error with which emulation ends then, 0: it goes on. */
int deed(ldfs_uc *uc);
/* What a driver of the disk does: to a register, with a queue, descriptors and requests. */
void store32(ldfs_uc *uc, uint64_t offset, uint64_t value);
uint32_t load32(ldfs_uc *uc, uint64_t offset);
/* Reset the disk and negotiate; whether it agreed. `right`: as the disk must. */
bool agree(ldfs_uc *uc, bool right);
void place_in_ram(ldfs_uc *uc, uint64_t size);
void describe(uint32_t index, uint64_t address, uint32_t size, uint16_t flags, uint16_t next);
void write_header(uint32_t kind, uint64_t sector);
uint16_t *available(void);
void flood(ldfs_uc *uc);
void begin_anew(ldfs_uc *uc);

/* ------------------------------------------------------------------- driver.c */
/* Use the disk as it is meant, and check what it does. */
void be_honest(ldfs_uc *uc);

#endif
