/* SPDX-License-Identifier: GPL-2.0-or-later */
/* buffer.h - memory for the machine's bytes outside of its views: in no core file, in no child, gone when it is freed. */
#ifndef LDFS_BUFFER_H
#define LDFS_BUFFER_H

#include <stdint.h>

/* [any thread] `size` bytes of zeros; NULL: no memory. */
void *ldfs_buffer_make(uint64_t size);
/* [any thread] What ldfs_buffer_make gave, of that size; NULL: nothing to do. */
void ldfs_buffer_free(void *buffer, uint64_t size);

#endif
