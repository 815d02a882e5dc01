/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fuse.c - libfuse's operation `read` for a host's mount. */
#include "serving/within.h"

int ldfs_fuse_read(const char *path, char *buf, size_t size, int64_t offset, void *info)
{
	const ldfs_fuse_file *file = info;
	const ldfs_open_file *opened = (const ldfs_open_file *)(uintptr_t)file->handle;

	if (!opened->image)
		return opened->others(path, buf, size, offset, info);
	return (int)ldfs_image_read(opened->image, (uint64_t)offset, buf, size);
}
