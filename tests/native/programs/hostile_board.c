/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hostile_board.c - a board (native/board/) whose guest does its worst: descriptors that loop, lie
 * outside RAM or wrap, requests beyond the disk, registers of any width, page tables of noise,
 * calls of the firmware with any argument.
 *
 *   hostile_board SEED TURNS [read-only]
 *
 * Unicorn is played by this program: emulation is a loop that draws one deed after the other, and
 * calls what the board has hooked, on the vCPU's thread. Meanwhile the main thread holds the
 * machine again and again and write-protects its memory as a dump does. Checked:
 *   - memory beside RAM is not touched, and RAM is stored to by the vCPU's thread alone, never by a
 *     system call, which would fail on a protected page instead of faulting;
 *   - the machine can always be held, and the board takes no more memory than it says;
 *   - between the bad requests an honest driver finds the disk as a disk should be;
 *   - the file behind the disk changes within the disk alone, and not at all where it is read-only.
 * Prints "right" and how often each of it happened.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

static struct ldfs_board *board;
static uint8_t *ram;
static uint64_t random_state, turns_left;
static uint64_t table = TABLE; /* where the guest has its descriptors */
static bool read_only;
static _Atomic uint64_t faults, broken, honest_reads, honest_writes, translated, trapped, held;
static _Atomic pid_t hart_tid;

static uint64_t draw(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static uint64_t below(uint64_t n)
{
	return (draw() >> 11) % n;
}

static bool one_in(uint64_t n)
{
	return below(n) == 0;
}

/* ------------------------------------------------------------- Unicorn, played */

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

unsigned int uc_version(unsigned int *major, unsigned int *minor)
{
	*major = LDFS_UC_API_MAJOR;
	*minor = 0;
	return 0;
}

int uc_open(int arch, int mode, ldfs_uc **uc)
{
	(void)mode;
	check(arch == LDFS_UC_ARCH_RISCV);
	*uc = calloc(1, sizeof(**uc));
	return 0;
}

int uc_close(ldfs_uc *uc)
{
	free(uc);
	return 0;
}

/* Code is dropped by a lookup of its address, as Unicorn does it. */
int uc_ctl(ldfs_uc *uc, int control, ...)
{
	if (control == LDFS_UC_CTL_WRITE_2(LDFS_UC_CTL_TB_REMOVE_CACHE)) {
		struct ldfs_uc_tlb_entry entry;
		va_list arguments;
		uint64_t begin, end;

		va_start(arguments, control);
		begin = va_arg(arguments, uint64_t);
		end = va_arg(arguments, uint64_t);
		va_end(arguments);
		check(begin >= LDFS_BOARD_RAM && end <= LDFS_BOARD_RAM + RAM_SIZE);
		check(uc->on_tlb_fill(uc, begin, LDFS_UC_MEM_FETCH, &entry, board));
		check(entry.paddr == begin);
	}
	return 0;
}

int uc_mem_map_ptr(ldfs_uc *uc, uint64_t address, uint64_t size, uint32_t perms, void *at)
{
	(void)uc, (void)perms;
	return address != LDFS_BOARD_RAM || size != RAM_SIZE || at != ram;
}

int uc_mmio_map(ldfs_uc *uc, uint64_t begin, uint64_t size, mmio_read read, void *read_user,
		mmio_write write, void *write_user)
{
	check(read_user == write_user && uc->device_count < 4);
	uc->devices[uc->device_count].begin = begin;
	uc->devices[uc->device_count].size = size;
	uc->devices[uc->device_count].read = read;
	uc->devices[uc->device_count++].write = write;
	return 0;
}

int uc_hook_add(ldfs_uc *uc, size_t *hook, int type, void *callback, void *user, uint64_t begin,
		uint64_t end, ...)
{
	(void)hook, (void)begin, (void)end;
	switch (type) {
	case LDFS_UC_HOOK_BLOCK:
		uc->block_user = user;
		uc->on_block = (void (*)(ldfs_uc *, uint64_t, uint32_t, void *))callback;
		break;
	case LDFS_UC_HOOK_INTR:
		uc->on_exception = (void (*)(ldfs_uc *, uint32_t, void *))callback;
		break;
	case LDFS_UC_HOOK_INSN_INVALID:
		uc->on_invalid = (bool (*)(ldfs_uc *, void *))callback;
		break;
	case LDFS_UC_HOOK_TLB_FILL:
		uc->on_tlb_fill = (bool (*)(ldfs_uc *, uint64_t, int, struct ldfs_uc_tlb_entry *,
					    void *))callback;
		break;
	}
	return 0;
}

int uc_reg_write(ldfs_uc *uc, int number, const void *value)
{
	memcpy(&uc->registers[number], value, 8);
	return 0;
}

int uc_reg_read(ldfs_uc *uc, int number, void *value)
{
	memcpy(value, &uc->registers[number], 8);
	return 0;
}

int uc_emu_stop(ldfs_uc *uc)
{
	uc->stopped = true;
	return 0;
}

const char *uc_strerror(int error)
{
	(void)error;
	return "";
}

/* ------------------------------------------------------------- the hostile guest */

static void store32(ldfs_uc *uc, uint64_t offset, uint64_t value)
{
	for (int i = 0; i < uc->device_count; i++)
		if (uc->devices[i].begin == LDFS_BOARD_DISK)
			uc->devices[i].write(uc, offset, 4, value, board);
}

/* Of RAM mostly; else what arithmetic may get wrong. */
static uint64_t any_address(void)
{
	static const uint64_t odd[] = { 0,
					LDFS_BOARD_RAM - 1,
					LDFS_BOARD_RAM + RAM_SIZE - 8,
					LDFS_BOARD_RAM + RAM_SIZE,
					LDFS_BOARD_DISK,
					UINT64_MAX,
					UINT64_MAX - 4095,
					LDFS_BOARD_RAM | UINT64_C(1) << 63,
					UINT64_C(1) << 32 };

	if (one_in(8))
		return odd[below(sizeof(odd) / sizeof(odd[0]))];
	return one_in(16) ? draw() : LDFS_BOARD_RAM + below(RAM_SIZE);
}

static uint64_t any_size(void)
{
	static const uint64_t odd[] = { 0,
					1,
					16,
					511,
					512,
					4096,
					SEGMENT_SIZE,
					SEGMENT_SIZE + 1,
					RAM_SIZE,
					UINT32_MAX,
					UINT32_MAX - 511 };

	return one_in(4) ? odd[below(sizeof(odd) / sizeof(odd[0]))] : SECTOR * below(17);
}

static void place(ldfs_uc *uc, uint64_t size, uint64_t descriptors, uint64_t driver,
		  uint64_t device)
{
	uint64_t at[] = { descriptors, driver, device };

	store32(uc, 0x30, 0);
	store32(uc, 0x44, 0);
	store32(uc, 0x38, size);
	for (int i = 0; i < 3; i++) {
		store32(uc, 0x80 + 0x10 * i, at[i]);
		store32(uc, 0x84 + 0x10 * i, at[i] >> 32);
	}
	store32(uc, 0x44, 1);
}

/* Its descriptors may be the last bytes of RAM. */
static void place_in_ram(ldfs_uc *uc, uint64_t size)
{
	table = one_in(2) ? TABLE : RAM_SIZE - 16 * size;
	place(uc, size, LDFS_BOARD_RAM + table, LDFS_BOARD_RAM + AVAILABLE, LDFS_BOARD_RAM + USED);
}

static uint64_t perhaps_elsewhere(uint64_t address, uint64_t alignment)
{
	return one_in(8) ? any_address() & -alignment : address;
}

static void begin_anew(ldfs_uc *uc)
{
	uint64_t size = one_in(16) ? draw() : UINT64_C(1) << below(8);

	store32(uc, 0x70, 0);
	table = one_in(2) ? TABLE : RAM_SIZE - 16 * (size & 127);
	place(uc, size, perhaps_elsewhere(LDFS_BOARD_RAM + table, 16),
	      perhaps_elsewhere(LDFS_BOARD_RAM + AVAILABLE, 2),
	      perhaps_elsewhere(LDFS_BOARD_RAM + USED, 4));
	if (one_in(4)) /* the queue is moved while it is ready */
		for (uint64_t i = 0; i < 3; i++)
			store32(uc, 0x80 + 0x10 * i, LDFS_BOARD_RAM + AVAILABLE + draw() % 16);
}

static void describe(uint32_t index, uint64_t address, uint32_t size, uint16_t flags, uint16_t next)
{
	uint8_t *at = ram + table + 16 * index;

	if (at + 16 > ram + RAM_SIZE)
		return;
	memcpy(at, &address, 8);
	memcpy(at + 8, &size, 4);
	memcpy(at + 12, &flags, 2);
	memcpy(at + 14, &next, 2);
}

static void write_header(uint32_t kind, uint64_t sector)
{
	uint32_t reserved = 0;

	memcpy(ram + HEADER, &kind, 4);
	memcpy(ram + HEADER + 4, &reserved, 4);
	memcpy(ram + HEADER + 8, &sector, 8);
}

static uint16_t *available(void)
{
	return (uint16_t *)(ram + AVAILABLE);
}

/* A chain that is right but for what is drawn, asked for as often as is drawn. */
static void ask_for_anything(ldfs_uc *uc)
{
	static const uint32_t kinds[] = {
		KIND_READ, KIND_WRITE, KIND_FLUSH, KIND_ID, 11, UINT32_MAX
	};
	uint32_t kind = kinds[below(one_in(4) ? 6 : 2)],
		 segments = (uint32_t)below(one_in(4) ? 70 : 4);
	uint32_t size = board->disk.size ? board->disk.size : 1, at;
	uint16_t way = kind == KIND_WRITE ? 0 : WRITABLE;

	write_header(kind, one_in(4) ? draw() >> below(64) : below(SECTORS + 2));
	describe(0, LDFS_BOARD_RAM + HEADER, 16, NEXT, 1);
	for (at = 1; at <= segments && at < 126; at++)
		describe(at, any_address(), (uint32_t)any_size(),
			 NEXT | (one_in(16) ? (uint16_t)draw() : way), (uint16_t)(at + 1));
	describe(at, LDFS_BOARD_RAM + HEADER + 64, 1, one_in(16) ? 0 : WRITABLE, 0);
	if (one_in(4)) /* a loop, a link to nowhere, any noise */
		describe((uint32_t)below(at + 1), any_address(), (uint32_t)draw(), (uint16_t)draw(),
			 (uint16_t)(one_in(2) ? below(size) : draw()));
	for (uint64_t i = one_in(8) ? below(300) : 1; i; i--) {
		uint16_t *ring = available();

		ring[2 + ring[1] % size] = one_in(16) ? (uint16_t)draw() : 0;
		ring[1]++;
		if (one_in(64))
			ring[1] = (uint16_t)draw();
	}
	store32(uc, 0x50, one_in(16) ? draw() : 0);
}

/* As much at once as the queue holds, and before it is done the same of another queue. */
static void flood(ldfs_uc *uc)
{
	uint64_t segments = one_in(2) ? SEGMENTS : 0;

	for (uint64_t queues = 1 + below(3); queues; queues--) {
		uint16_t *ring = available();

		store32(uc, 0x70, 0);
		memset(ram + AVAILABLE, 0, 4096);
		place_in_ram(uc, QUEUE_SIZE);
		write_header(segments ? KIND_ID : KIND_FLUSH, 0);
		describe(0, LDFS_BOARD_RAM + HEADER, 16, NEXT, 1);
		for (uint16_t i = 1; i <= segments; i++)
			describe(i, LDFS_BOARD_RAM + 2 * RAM_SIZE / 4, SEGMENT_SIZE,
				 NEXT | WRITABLE, (uint16_t)(i + 1));
		describe((uint32_t)segments + 1, LDFS_BOARD_RAM + HEADER + 64, 1, WRITABLE, 0);
		ring[1] = QUEUE_SIZE;
		store32(uc, 0x50, 0);
	}
}

static void touch_any_register(ldfs_uc *uc)
{
	int i = (int)below((uint64_t)uc->device_count);
	uint64_t offset = one_in(2) ? below(uc->devices[i].size) : 4 * below(64);
	unsigned int size = one_in(2) ? 4 : 1u << below(4);

	if (one_in(2))
		uc->devices[i].read(uc, offset, size, board);
	else
		uc->devices[i].write(uc, offset, size, one_in(2) ? draw() : below(16), board);
}

static void call_the_firmware(ldfs_uc *uc)
{
	static const uint64_t extensions[] = { 0x10,     0x54494d45, 0x735049,  0x52464e43,
					       0x48534d, 0x4442434e, 0x4442434e };
	uint64_t *x = &uc->registers[LDFS_UC_RISCV_REG_X0];

	x[17] = one_in(8) ? draw() : extensions[below(7)];
	x[16] = one_in(8) ? draw() : below(4);
	x[10] = one_in(2) ? any_size() : draw();
	x[11] = any_address();
	x[12] = one_in(2) ? draw() : 0;
	uc->registers[LDFS_UC_RISCV_REG_PRIV] = SUPERVISOR;
	uc->on_exception(uc, CALL_FROM_USER, board);
}

/* Page tables are what lies in RAM, some of it entries that lead on. */
static int walk(ldfs_uc *uc)
{
	uint64_t root = below(RAM_SIZE / LDFS_PAGE_SIZE), address = draw() >> below(40);
	uint64_t mode = one_in(4) ? below(16) : 8 + below(3);
	struct ldfs_uc_tlb_entry entry;

	for (uint64_t i = below(64); i; i--) {
		uint64_t leads_to = (any_address() >> 12) << 10, pte = leads_to | (draw() & 0xff);

		memcpy(ram + root * LDFS_PAGE_SIZE + 8 * below(512), &pte, 8);
	}
	if (one_in(2)) /* the half that has a leading bit */
		address = (uint64_t)((int64_t)(address << 25) >> 25);
	uc->registers[LDFS_UC_RISCV_REG_SATP] =
		one_in(4) ? 0 : mode << 60 | (LDFS_BOARD_RAM / LDFS_PAGE_SIZE + root);
	uc->registers[LDFS_UC_RISCV_REG_SSTATUS] = draw();
	uc->registers[LDFS_UC_RISCV_REG_PRIV] = below(2);
	uc->registers[LDFS_UC_RISCV_REG_PC] = address;
	if (uc->registers[LDFS_UC_RISCV_REG_SATP] == 0)
		address = any_address();
	if (uc->on_tlb_fill(uc, address & ~UINT64_C(4095), LDFS_UC_MEM_READ + (int)below(3), &entry,
			    board)) {
		add_seq(&translated, 1);
		return 0;
	}
	return LDFS_UC_ERR_EXCEPTION;
}

/* ------------------------------------------------------------- the honest driver */

static void expect_done(uint16_t used)
{
	uint64_t until = ldfs_now_ns() + PATIENCE_NS;
	uint16_t now;

	do {
		board->hart->uc->on_block(board->hart->uc, 0, 0, board->hart->uc->block_user);
		memcpy(&now, ram + USED + 2, 2);
		check(ldfs_now_ns() < until);
	} while (now != used);
}

static uint8_t ask(ldfs_uc *uc, uint32_t kind, uint64_t sector, uint32_t sectors)
{
	uint16_t *ring = available(), way = kind == KIND_READ ? WRITABLE : 0;

	write_header(kind, sector);
	ram[HEADER + 64] = 0xff;
	describe(0, LDFS_BOARD_RAM + HEADER, 16, NEXT, 1);
	describe(1, LDFS_BOARD_RAM + DATA, SECTOR, NEXT | way, 2);
	describe(2, LDFS_BOARD_RAM + DATA + SECTOR, SECTOR * (sectors - 1), NEXT | way, 3);
	describe(3, LDFS_BOARD_RAM + HEADER + 64, 1, WRITABLE, 0);
	ring[2 + ring[1] % 4] = 0;
	ring[1]++;
	store32(uc, 0x50, 0);
	expect_done(ring[1]);
	return ram[HEADER + 64];
}

static void be_honest(ldfs_uc *uc)
{
	uint32_t sectors = (uint32_t)(2 + below(64));
	uint64_t sector = below(SECTORS - sectors + 1), seed = draw();
	uint8_t written[66 * SECTOR];

	if (one_in(4))
		flood(uc);
	memset(ram + AVAILABLE, 0, 4096);
	memset(ram + USED, 0, 4096);
	store32(uc, 0x70, 0);
	place_in_ram(uc, 4);
	for (uint32_t i = 0; i < sectors * SECTOR; i++)
		written[i] = (uint8_t)(seed * (i + 1) >> 32);
	memcpy(ram + DATA, written, sectors * SECTOR);
	check(ask(uc, KIND_WRITE, sector, sectors) == read_only);
	add_seq(&honest_writes, 1);
	memset(ram + DATA, 0, sectors * SECTOR);
	check(ask(uc, KIND_READ, sector, sectors) == 0);
	check(read_only || !memcmp(ram + DATA, written, sectors * SECTOR));
	add_seq(&honest_reads, 1);
	check(ask(uc, KIND_READ, SECTORS - 1, 2) == 1);
	check(ask(uc, KIND_WRITE, UINT64_MAX - 1, 2) == 1);
}

/* ------------------------------------------------------------------ emulation */

static int deed(ldfs_uc *uc)
{
	switch (below(16)) {
	case 0:
		if (one_in(32))
			flood(uc);
		begin_anew(uc);
		return 0;
	case 1:
		if (one_in(8))
			be_honest(uc);
		return 0;
	case 2:
	case 3:
		call_the_firmware(uc);
		return 0;
	case 4:
		return walk(uc);
	case 5:
		uc->registers[LDFS_UC_RISCV_REG_PC] = draw();
		uc->on_exception(uc, (uint32_t)below(16), board);
		add_seq(&trapped, 1);
		return 0;
	case 6:
		if (one_in(2)) /* it rests, until the next tick at the latest */
			return 0;
		uc->on_invalid(uc, board);
		return LDFS_UC_ERR_EXCEPTION;
	case 7:
	case 8:
	case 9:
		touch_any_register(uc);
		return 0;
	default:
		ask_for_anything(uc);
		return 0;
	}
}

static void have_a_handler(ldfs_uc *uc)
{
	uc->registers[LDFS_UC_RISCV_REG_STVEC] = LDFS_BOARD_RAM;
}

static void switch_off(ldfs_uc *uc)
{
	uint64_t *x = &uc->registers[LDFS_UC_RISCV_REG_X0];

	x[17] = 0x53525354;
	x[16] = x[10] = 0;
	uc->registers[LDFS_UC_RISCV_REG_PRIV] = SUPERVISOR;
	uc->on_exception(uc, CALL_FROM_USER, board);
}

int uc_emu_start(ldfs_uc *uc, uint64_t begin, uint64_t until, uint64_t timeout, size_t count)
{
	int error = 0;

	(void)begin, (void)until, (void)timeout, (void)count;
	store_seq(&hart_tid, gettid());
	uc->stopped = false;
	have_a_handler(uc);
	for (;;) {
		uc->on_block(uc, 0, 0, uc->block_user);
		if (uc->stopped || error)
			return error;
		check(board->disk.under_way <= QUEUE_SIZE);
		check(board->disk.bytes_under_way <= BYTES_MOST + REQUEST_MOST);
		if (board->disk.broken) {
			add_seq(&broken, 1);
			begin_anew(uc);
		}
		if (turns_left)
			turns_left--;
		else
			switch_off(uc);
		error = turns_left && !uc->stopped ? deed(uc) : 0;
		if (one_in(256)) { /* wfi, with a tick to come soon */
			ldfs_clock_set(board, ldfs_clock_now() + below(2000));
			return 0;
		}
	}
}

/* ------------------------------------------------------------- the host's side */

/* A store to protected memory: as of a dump, but that nothing is kept. */
static void on_fault(int number, siginfo_t *info, void *context)
{
	uint8_t *at = info->si_addr;

	(void)context;
	if (at < ram || at >= ram + RAM_SIZE || gettid() != load_seq(&hart_tid)) {
		static const char said[] = "a stray access, or one of another thread\n";

		(void)!write(STDOUT_FILENO, said, sizeof(said) - 1);
		signal(number, SIG_DFL);
		return;
	}
	add_seq(&faults, 1);
	mprotect(ram + (uint64_t)(at - ram) / 4096 * 4096, 4096, PROT_READ | PROT_WRITE);
}

static void *make_ram(void)
{
	uint8_t *all = mmap(NULL, RAM_SIZE + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);

	check(all != MAP_FAILED);
	check(!mprotect(all + GUARD, RAM_SIZE, PROT_READ | PROT_WRITE));
	return all + GUARD;
}

static int make_disk(void)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);
	uint8_t sector[SECTOR];

	check(fd >= 0);
	memset(sector, 0x5a, sizeof(sector));
	for (uint32_t i = 0; i < 2 * SECTORS; i++)
		check(write(fd, sector, SECTOR) == SECTOR);
	return fd;
}

static void check_file(int fd)
{
	uint8_t sector[SECTOR];
	uint32_t changed = 0;

	check(lseek(fd, 0, SEEK_END) == 2 * SECTORS * SECTOR);
	for (uint32_t i = 0; i < 2 * SECTORS; i++) {
		bool same = true;

		check(pread(fd, sector, SECTOR, i * SECTOR) == SECTOR);
		for (uint32_t j = 0; j < SECTOR; j++)
			same = same && sector[j] == 0x5a;
		check(same || (i < SECTORS && !read_only));
		changed += !same;
	}
	check(read_only || changed > 0);
}

static void hold_and_protect(ldfs_machine *machine)
{
	check(ldfs_machine_quiesce(machine, ldfs_now_ns() + PATIENCE_NS) == 0);
	check(!mprotect(ram, RAM_SIZE, PROT_READ));
	check(ldfs_machine_resume(machine) == 0);
	add_seq(&held, 1);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	ldfs_boot_part part = { LDFS_BOARD_RAM, "\x13", 1 };
	ldfs_board_plan plan = { .ram_size = RAM_SIZE,
				 .entry = LDFS_BOARD_RAM,
				 .parts = &part,
				 .part_count = 1,
				 .disk_size = (uint64_t)SECTORS * SECTOR };
	ldfs_board_status status;
	char why[256];

	check(argc >= 3);
	random_state = strtoull(argv[1], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
	turns_left = strtoull(argv[2], NULL, 10);
	read_only = argc > 3;
	ram = make_ram();
	plan.disk = make_disk();
	plan.read_only = read_only;
	sigaction(SIGSEGV, &action, NULL);
	check(ldfs_board_create("", ram, &plan, &board, why, sizeof(why)) == 0);
	check(ldfs_board_start(board) == 0);
	do {
		static const struct timespec moment = { 0, 2000000 };

		hold_and_protect(ldfs_board_machine(board));
		ldfs_board_type(board, (const uint8_t *)"typed\n", 6);
		nanosleep(&moment, NULL);
		ldfs_board_status_of(board, &status);
	} while (!status.off);
	check(ldfs_board_stop(board, ldfs_now_ns() + PATIENCE_NS) == 0);
	check(ldfs_board_destroy(board) == 0);
	check_file(plan.disk);
	check(faults && broken && honest_reads && honest_writes && translated && trapped && held);
	printf("right: %" PRIu64 " requests, %" PRIu64 " refused, %" PRIu64
	       " broken queues, %" PRIu64 " faults, %" PRIu64 " honest, %" PRIu64
	       " translated, held %" PRIu64 " times\n",
	       status.disk_reads + status.disk_writes, status.disk_errors, broken, faults,
	       honest_reads, translated, held);
	return 0;
}
