/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A block of the table, as C writes it. */
#include <stdio.h>
#include <string.h>
#include "ldfs.h"
int main(void)
{
	static ldfs_table_block b;
	memcpy(b.magic, LDFS_TABLE_MAGIC, 8);
	for (int i = 0; i < 16; i++)
		b.dump_id[i] = i;
	b.index = 1;
	b.count = 3;
	b.entries[0] = (ldfs_table_entry){ 0x123456789abcULL, 0xfedcba9876543210ULL, 4096,
					   LDFS_G_SAVED,      LDFS_BY_STEAL,         0 };
	b.entries[1] = (ldfs_table_entry){ 0, 0, 0, LDFS_G_HOLE, LDFS_BY_SWEEP, 0 };
	b.entries[2] = (ldfs_table_entry){ 0, 0, 0, LDFS_G_LOST, LDFS_BY_NONE, 0 };
	return fwrite(&b, sizeof b, 1, stdout) != 1;
}
