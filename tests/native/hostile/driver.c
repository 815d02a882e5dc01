/* SPDX-License-Identifier: GPL-2.0-or-later */
/* driver.c - an honest driver of the disk, between the bad requests. */
#include "hostile.h"

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

void be_honest(ldfs_uc *uc)
{
	uint32_t sectors = (uint32_t)(2 + below(64));
	uint64_t sector = below(SECTORS - sectors + 1), seed = draw();
	uint8_t written[66 * SECTOR];

	if (one_in(4))
		flood(uc);
	memset(ram + AVAILABLE, 0, 4096);
	memset(ram + USED, 0, 4096);
	check(!agree(uc, false));
	place_in_ram(uc, 4);
	check(!load32(uc, 0x44));
	check(agree(uc, true));
	place_in_ram(uc, 4);
	check(load32(uc, 0x44));
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
