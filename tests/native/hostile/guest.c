/* SPDX-License-Identifier: GPL-2.0-or-later */
/* guest.c - the hostile guest. */
#include "hostile.h"

static uint64_t table = TABLE; /* where it has its descriptors, from the start of RAM on */

void store32(ldfs_uc *uc, uint64_t offset, uint64_t value)
{
	for (int i = 0; i < uc->device_count; i++)
		if (uc->devices[i].begin == LDFS_BOARD_DISK)
			uc->devices[i].write(uc, offset, 4, value, board);
}

uint32_t load32(ldfs_uc *uc, uint64_t offset)
{
	for (int i = 0; i < uc->device_count; i++)
		if (uc->devices[i].begin == LDFS_BOARD_DISK)
			return (uint32_t)uc->devices[i].read(uc, offset, 4, board);
	return 0;
}

/* What it accepts: all that is offered; or with one that is not, or without VERSION_1. */
bool agree(ldfs_uc *uc, bool right)
{
	bool older = !right && one_in(2);
	uint64_t page, more = right || older ? 0 : UINT64_C(1) << below(32);

	store32(uc, 0x70, 0);
	store32(uc, 0x70, 3);
	for (page = 0; page < 2; page++) {
		store32(uc, 0x14, page);
		store32(uc, 0x24, page);
		store32(uc, 0x20, load32(uc, 0x10) & ~(uint64_t)(older && page));
	}
	if (more) {
		page = below(4);
		store32(uc, 0x14, page);
		store32(uc, 0x24, page);
		if (load32(uc, 0x10) & more)
			return agree(uc, right);
		store32(uc, 0x20, load32(uc, 0x10) | more);
	}
	store32(uc, 0x70, 11);
	return load32(uc, 0x70) == 11;
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
void place_in_ram(ldfs_uc *uc, uint64_t size)
{
	table = one_in(2) ? TABLE : RAM_SIZE - 16 * size;
	place(uc, size, LDFS_BOARD_RAM + table, LDFS_BOARD_RAM + AVAILABLE, LDFS_BOARD_RAM + USED);
}

static uint64_t perhaps_elsewhere(uint64_t address, uint64_t alignment)
{
	return one_in(8) ? any_address() & -alignment : address;
}

void begin_anew(ldfs_uc *uc)
{
	uint64_t size = one_in(16) ? draw() : UINT64_C(1) << below(8);

	if (one_in(4)) {
		check(!agree(uc, false));
		store32(uc, 0x20, 0);
		check(load32(uc, 0x70) == 3);
	} else {
		check(agree(uc, true));
		store32(uc, 0x20, UINT32_MAX); /* too late */
		check(load32(uc, 0x70) == 11);
	}
	table = one_in(2) ? TABLE : RAM_SIZE - 16 * (size & 127);
	place(uc, size, perhaps_elsewhere(LDFS_BOARD_RAM + table, 16),
	      perhaps_elsewhere(LDFS_BOARD_RAM + AVAILABLE, 2),
	      perhaps_elsewhere(LDFS_BOARD_RAM + USED, 4));
	if (one_in(4)) /* the queue is moved while it is ready */
		for (uint64_t i = 0; i < 3; i++)
			store32(uc, 0x80 + 0x10 * i, LDFS_BOARD_RAM + AVAILABLE + draw() % 16);
}

void describe(uint32_t index, uint64_t address, uint32_t size, uint16_t flags, uint16_t next)
{
	uint8_t *at = ram + table + 16 * index;

	if (at + 16 > ram + RAM_SIZE)
		return;
	memcpy(at, &address, 8);
	memcpy(at + 8, &size, 4);
	memcpy(at + 12, &flags, 2);
	memcpy(at + 14, &next, 2);
}

void write_header(uint32_t kind, uint64_t sector)
{
	uint32_t reserved = 0;

	memcpy(ram + HEADER, &kind, 4);
	memcpy(ram + HEADER + 4, &reserved, 4);
	memcpy(ram + HEADER + 8, &sector, 8);
}

uint16_t *available(void)
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
void flood(ldfs_uc *uc)
{
	uint64_t segments = one_in(2) ? SEGMENTS : 0;

	for (uint64_t queues = 1 + below(3); queues; queues--) {
		uint16_t *ring = available();

		check(agree(uc, true));
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

int deed(ldfs_uc *uc)
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
