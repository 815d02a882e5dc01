/* SPDX-License-Identifier: GPL-2.0-or-later */
/* console.c - see console.h. */
#include "vcpu/console.h"

void ldfs_console_open(struct ldfs_console *c)
{
	pthread_mutex_init(&c->lock, NULL);
}

void ldfs_console_close(struct ldfs_console *c)
{
	pthread_mutex_destroy(&c->lock);
}

static void flush(struct ldfs_console *c, struct ldfs_console_line *line)
{
	for (uint32_t i = 0; i < line->length; i++)
		c->ring[c->written++ % LDFS_CONSOLE_SIZE] = line->bytes[i];
	line->length = 0;
}

void ldfs_console_put(struct ldfs_console *c, uint32_t who, uint8_t byte)
{
	struct ldfs_console_line *line = &c->lines[who];

	pthread_mutex_lock(&c->lock);
	line->bytes[line->length++] = byte;
	if (byte == '\n' || line->length == LDFS_CONSOLE_LINE)
		flush(c, line);
	pthread_mutex_unlock(&c->lock);
}

/* Byte i of everything that is kept: the ring's `kept` bytes, then the unfinished lines. */
static uint8_t byte_at(const struct ldfs_console *c, uint64_t kept, uint64_t i)
{
	if (i < kept)
		return c->ring[(c->written - kept + i) % LDFS_CONSOLE_SIZE];
	i -= kept;
	for (uint32_t who = 0; who < LDFS_MAX_VCPUS; who++) {
		if (i < c->lines[who].length)
			return c->lines[who].bytes[i];
		i -= c->lines[who].length;
	}
	return 0;
}

uint64_t ldfs_console_read(struct ldfs_console *c, uint8_t *buf, uint64_t size, uint64_t *end)
{
	uint64_t kept, total, skip;

	pthread_mutex_lock(&c->lock);
	kept = c->written < LDFS_CONSOLE_SIZE ? c->written : LDFS_CONSOLE_SIZE;
	total = kept;
	for (uint32_t who = 0; who < LDFS_MAX_VCPUS; who++)
		total += c->lines[who].length;
	if (end)
		*end = c->written - kept + total;
	skip = total > size ? total - size : 0;
	for (uint64_t i = skip; i < total; i++)
		buf[i - skip] = byte_at(c, kept, i);
	pthread_mutex_unlock(&c->lock);
	return total - skip;
}
