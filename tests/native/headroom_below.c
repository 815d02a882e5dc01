/* SPDX-License-Identifier: GPL-2.0-or-later */
/* headroom_below FOLDER BYTES [ram] - what headroom.c, built with -Dopen=open_below, says where
 * /proc and /sys are below a folder. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "ldfs.h"

static const char *folder;

int open_below(const char *path, int flags, ...);

int open_below(const char *path, int flags, ...)
{
	char below[8192];

	snprintf(below, sizeof(below), "%s%s", folder, path);
	return open(below, flags);
}

int main(int argc, char **argv)
{
	uint64_t bytes;

	if (argc < 3)
		return 2;
	folder = argv[1];
	bytes = strtoull(argv[2], NULL, 10);
	puts((argc > 3 ? ldfs_headroom_ram(bytes) : ldfs_headroom(bytes)) ? "yes" : "no");
	return 0;
}
