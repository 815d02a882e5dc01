/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * console.h - what a machine's vCPUs print: the newest LDFS_CONSOLE_SIZE bytes of it.
 *
 * Each vCPU has an unfinished line of its own, which is copied to the ring when it ends or is full,
 * so that lines of different vCPUs do not mix. Readers see the unfinished lines too.
 */
#ifndef LDFS_CONSOLE_H
#define LDFS_CONSOLE_H

#include <pthread.h>
#include <stdint.h>

#include "ldfs.h"

#define LDFS_CONSOLE_LINE 255

struct ldfs_console_line {
	uint32_t length;
	uint8_t bytes[LDFS_CONSOLE_LINE];
};

struct ldfs_console {
	pthread_mutex_t lock; /* everything below; never held across anything that can wait */
	uint64_t written;     /* bytes in all; the ring holds the last LDFS_CONSOLE_SIZE of them */
	uint8_t ring[LDFS_CONSOLE_SIZE];
	struct ldfs_console_line lines[LDFS_MAX_VCPUS];
};

void ldfs_console_open(struct ldfs_console *c);
void ldfs_console_close(struct ldfs_console *c);
/* [any thread] Add a byte that a vCPU prints; its number is below LDFS_MAX_VCPUS. */
void ldfs_console_put(struct ldfs_console *c, uint32_t who, uint8_t byte);
/*
 * [any thread] Copy the newest bytes, oldest first; returns how many, at most `size`. *end, if
 * `end` is not NULL: how many there ever were.
 */
uint64_t ldfs_console_read(struct ldfs_console *c, uint8_t *buf, uint64_t size, uint64_t *end);

#endif
