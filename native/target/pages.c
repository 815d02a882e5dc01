/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pages.c - packed pages in memory and in a file, for programs that have neither an arena nor a
 * dump: converters and readers of finished dumps.
 */
#include <errno.h>
#include <stdlib.h>

#include "target/target.h"

#define READ_BYTES (128u << 10) /* stored bytes that are in memory at once */

_Static_assert(sizeof(ldfs_page_desc) == 24, "on-target layout");

int64_t ldfs_pages_pack(uint32_t codec, int level, const void *pages, uint32_t count, void *out,
			ldfs_page_desc *descs)
{
	const uint8_t *page = pages;
	struct codec *c;
	uint64_t used = 0;

	if (!ldfs_codec_check(codec, level))
		return -EINVAL;
	c = ldfs_codec_open(codec, level);
	if (!c)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++, page += LDFS_PAGE_SIZE) {
		uint32_t size = ldfs_codec_pack(c, page, (uint8_t *)out + used);

		descs[i] = (ldfs_page_desc){ .offset = used, .size = size };
		descs[i].flags = size == LDFS_PAGE_SIZE || size == 0 ? LDFS_CODEC_NONE : codec;
		used += size;
	}
	ldfs_codec_close(c);
	return (int64_t)used;
}

static bool possible(const ldfs_page_desc *d)
{
	return d->size > 0 && d->size <= LDFS_PAGE_SIZE &&
	       d->offset <= (uint64_t)INT64_MAX - LDFS_PAGE_SIZE;
}

/*
 * The number of descriptors, from the first on, whose stored bytes are contiguous and together at
 * most READ_BYTES: they can be read with one call.
 */
static uint32_t stretch(const ldfs_page_desc *descs, uint32_t count, uint64_t *bytes)
{
	uint32_t n = 0;

	for (*bytes = 0; n < count && possible(&descs[n]); n++) {
		if (descs[n].offset != descs[0].offset + *bytes ||
		    *bytes + descs[n].size > READ_BYTES)
			break;
		*bytes += descs[n].size;
	}
	return n;
}

static int unpack_stretch(struct codec *c, const ldfs_page_desc *descs, uint32_t count,
			  const uint8_t *bytes, uint8_t *to)
{
	int rc = 0;

	for (uint32_t i = 0; !rc && i < count; i++) {
		rc = ldfs_codec_unpack(c, descs[i].flags, bytes, descs[i].size, to);
		bytes += descs[i].size;
		to += LDFS_PAGE_SIZE;
	}
	return rc;
}

static int read_stretches(struct codec *c, int fd, const ldfs_page_desc *descs, uint32_t count,
			  uint8_t *bytes, uint8_t *to)
{
	while (count > 0) {
		uint64_t size;
		uint32_t n = stretch(descs, count, &size);
		int rc = n ? ldfs_read_all(fd, bytes, size, descs->offset) : -EBADMSG;

		if (!rc)
			rc = unpack_stretch(c, descs, n, bytes, to);
		if (rc)
			return rc;
		descs += n;
		count -= n;
		to += (uint64_t)n * LDFS_PAGE_SIZE;
	}
	return 0;
}

int ldfs_pages_read(int fd, const ldfs_page_desc *descs, uint32_t count, void *buf)
{
	struct codec *c = ldfs_codec_open_reader();
	uint8_t *bytes = malloc(READ_BYTES);
	int rc = c && bytes ? read_stretches(c, fd, descs, count, bytes, buf) : -ENOMEM;

	ldfs_codec_close(c);
	free(bytes);
	return rc;
}
