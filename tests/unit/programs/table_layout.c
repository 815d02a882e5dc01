/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes, places and values of the table's structs. */
#include <stdio.h>
#include <sys/procfs.h>
#include "ldfs.h"
#define SIZE(t) printf(#t " size %zu\n", sizeof(t))
#define AT(t, f) printf(#t " " #f " %zu\n", offsetof(t, f))
#define VALUE(n) printf(#n " is %d\n", (int)(n))
int main(void)
{
	SIZE(ldfs_table_entry);
	AT(ldfs_table_entry, where);
	AT(ldfs_table_entry, checksum);
	AT(ldfs_table_entry, stored);
	AT(ldfs_table_entry, state);
	AT(ldfs_table_entry, how);
	AT(ldfs_table_entry, reserved);
	SIZE(ldfs_table_block);
	AT(ldfs_table_block, magic);
	AT(ldfs_table_block, dump_id);
	AT(ldfs_table_block, index);
	AT(ldfs_table_block, count);
	AT(ldfs_table_block, checksum);
	AT(ldfs_table_block, entries);
	VALUE(LDFS_TABLE_BLOCK_SIZE);
	VALUE(LDFS_TABLE_BLOCK_ENTRIES);
	VALUE(LDFS_G_ARMED);
	VALUE(LDFS_G_SAVED);
	VALUE(LDFS_G_HOLE);
	VALUE(LDFS_G_LOST);
	VALUE(LDFS_BY_NONE);
	VALUE(LDFS_BY_SWEEP);
	VALUE(LDFS_BY_FAULT);
	VALUE(LDFS_BY_STEAL);
#ifdef __x86_64__
	SIZE(struct elf_prstatus);
	AT(struct elf_prstatus, pr_pid);
	AT(struct elf_prstatus, pr_reg);
	AT(struct elf_prstatus, pr_fpvalid);
#endif
	return 0;
}
