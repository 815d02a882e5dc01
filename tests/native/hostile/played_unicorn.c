/* SPDX-License-Identifier: GPL-2.0-or-later */
/* played_unicorn.c - Unicorn, played: emulation is one deed after the other. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdlib.h>

#include "hostile.h"

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
