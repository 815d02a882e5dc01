/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pack.c - a packed target (kdump): where the bytes of each page went, and the descriptors that say
 * so.
 *
 * In memory each page costs two bytes, its stored size; its offset is that of its granule plus the
 * sizes of the pages before it. The descriptors are made from that when the marks of the granule
 * table are written: data before descriptor before mark, and only for granules in a final state.
 * When a granule is stolen from the sweep, the sweep's bytes of it may be wrong, and the slot's
 * bytes are appended elsewhere; even a dump that breaks off then has no descriptor of the sweep's
 * bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "saving/within.h"

#define NOTES_MOST 512 /* descriptors of one write: 12 KiB, on the stack */

static bool whole_pages(const ldfs_dump_config *config)
{
	for (uint32_t i = 0; i < config->extent_count; i++)
		if ((config->extents[i].length | config->extents[i].target_offset) % LDFS_PAGE_SIZE)
			return false;
	return true;
}

int ldfs_pack_init(ldfs_dump *d, const ldfs_dump_config *config)
{
	struct ldfs_pack *p = &d->pack;

	if (!config->packed)
		return 0;
	if (!ldfs_codec_check(config->codec, config->level) || !whole_pages(config) ||
	    config->target_fd < 0 || config->table_fd < 0 ||
	    config->zero_page_offset > (uint64_t)INT64_MAX - LDFS_PAGE_SIZE ||
	    config->descriptors_offset > config->zero_page_offset)
		return -EINVAL;
	p->codec = config->codec;
	p->level = config->level;
	p->descriptors = config->descriptors_offset;
	p->zero_page = config->zero_page_offset;
	store_seq(&p->end, config->zero_page_offset + LDFS_PAGE_SIZE);
	p->size = calloc(d->arena->size / LDFS_PAGE_SIZE, sizeof(*p->size));
	p->where = calloc(d->granules, sizeof(*p->where));
	p->noted = calloc(d->granules, sizeof(*p->noted));
	p->on = true;
	return p->size && p->where && p->noted ? 0 : -ENOMEM;
}

void ldfs_pack_destroy(ldfs_dump *d)
{
	free(d->pack.size);
	free(d->pack.where);
	free(d->pack.noted);
}

/* ------------------------------------------------------------------- packing */

static uint16_t *sizes_of(const ldfs_dump *d, uint32_t g)
{
	return d->pack.size + ldfs_granule_start(d, g) / LDFS_PAGE_SIZE;
}

static uint32_t pages_of(const ldfs_dump *d, uint32_t g)
{
	return (uint32_t)(ldfs_granule_length(d, g) / LDFS_PAGE_SIZE);
}

uint64_t ldfs_pack_granule(ldfs_dump *d, struct codec *c, uint32_t g, const void *bytes,
			   uint8_t *out)
{
	const uint8_t *page = bytes;
	uint16_t *size = sizes_of(d, g);
	uint64_t used = 0;

	for (uint32_t n = pages_of(d, g); n > 0; n--, page += LDFS_PAGE_SIZE) {
		*size = (uint16_t)ldfs_codec_pack(c, page, out + used);
		used += *size++;
	}
	return used;
}

uint64_t ldfs_pack_stored(const ldfs_dump *d, uint32_t g)
{
	const uint16_t *size = sizes_of(d, g);
	uint64_t sum = 0;

	for (uint32_t n = pages_of(d, g); n > 0; n--)
		sum += *size++;
	return sum;
}

static int append(ldfs_dump *d, const void *bytes, uint64_t length, uint64_t *at)
{
	*at = add_seq(&d->pack.end, length);
	if (*at > (uint64_t)INT64_MAX - length)
		return -EFBIG;
	return length ? ldfs_target_put(&d->target, bytes, length, *at) : 0;
}

int ldfs_pack_append(ldfs_dump *d, const void *bytes, uint64_t length, uint64_t *at)
{
	int rc = append(d, bytes, length, at);

	/* A bad block need not lose these pages: append them again, at another place. */
	return rc == -EIO && !d->target.stream ? append(d, bytes, length, at) : rc;
}

/* --------------------------------------------------------------- descriptors */

/* Descriptors [index, index + count), collected as long as each is the next one after the last. */
struct notes {
	ldfs_dump *d;
	uint64_t index;
	uint32_t count;
	ldfs_page_desc descs[NOTES_MOST];
};

static int put_notes(struct notes *n)
{
	uint64_t at = n->d->pack.descriptors + n->index * sizeof(n->descs[0]);
	uint32_t count = n->count;

	n->count = 0;
	return count ? ldfs_target_put(&n->d->target, n->descs, count * sizeof(n->descs[0]), at)
		     : 0;
}

static int note_page(struct notes *n, uint64_t index, uint64_t at, uint32_t size)
{
	const struct ldfs_pack *p = &n->d->pack;
	ldfs_page_desc *desc;
	int rc = 0;

	if (n->count == NOTES_MOST || index != n->index + n->count)
		rc = put_notes(n);
	if (rc)
		return rc;
	if (n->count == 0)
		n->index = index;
	desc = &n->descs[n->count++];
	*desc = (ldfs_page_desc){ .offset = p->zero_page, .size = LDFS_PAGE_SIZE };
	if (size == 0)
		return 0;
	desc->offset = at;
	desc->size = size;
	desc->flags = size == LDFS_PAGE_SIZE ? LDFS_CODEC_NONE : p->codec;
	return 0;
}

static int note_granule(struct notes *n, uint32_t g)
{
	ldfs_dump *d = n->d;
	uint64_t start = ldfs_granule_start(d, g), length = ldfs_granule_length(d, g);
	uint64_t at = d->pack.where[g];
	const uint16_t *size = sizes_of(d, g);
	int rc = 0;

	while (!rc && length > 0) {
		uint64_t place, run = ldfs_target_run(&d->target, start, &place);

		run = run < length ? run : length;
		start += run;
		length -= run;
		for (uint64_t i = place / LDFS_PAGE_SIZE; !rc && run > 0; run -= LDFS_PAGE_SIZE) {
			rc = note_page(n, i++, at, *size);
			at += *size++;
		}
	}
	return rc;
}

static bool wants_note(const ldfs_dump *d, uint32_t g, uint8_t state)
{
	return !d->pack.noted[g] && (state == LDFS_G_SAVED || state == LDFS_G_HOLE);
}

int ldfs_pack_note(ldfs_dump *d, const ldfs_table_block *block)
{
	uint32_t first = block->index * LDFS_TABLE_BLOCK_ENTRIES;
	struct notes n = { .d = d };
	int rc = 0;

	for (uint32_t i = 0; !rc && i < block->count; i++)
		if (wants_note(d, first + i, block->entries[i].state))
			rc = note_granule(&n, first + i);
	if (!rc)
		rc = put_notes(&n);
	for (uint32_t i = 0; !rc && i < block->count; i++)
		d->pack.noted[first + i] |= wants_note(d, first + i, block->entries[i].state);
	return rc;
}

/* ------------------------------------------------------------------- reading */

static int read_page(const ldfs_dump *d, struct codec *c, uint64_t at, uint32_t size, uint8_t *page)
{
	uint8_t bytes[LDFS_PAGE_SIZE];
	int rc;

	if (size == 0) {
		memset(page, 0, LDFS_PAGE_SIZE);
		return 0;
	}
	rc = ldfs_read_all(d->target.fd, bytes, size, at);
	if (rc)
		return rc;
	rc = ldfs_codec_unpack(c, size == LDFS_PAGE_SIZE ? LDFS_CODEC_NONE : d->pack.codec, bytes,
			       size, page);
	return rc == -EBADMSG ? -EIO : rc;
}

static int read_pages(const ldfs_dump *d, struct codec *c, uint32_t g, uint64_t within, uint8_t *to,
		      uint64_t length)
{
	const uint16_t *size = sizes_of(d, g);
	uint64_t at = d->pack.where[g];
	uint8_t page[LDFS_PAGE_SIZE];
	int rc = 0;

	for (; within >= LDFS_PAGE_SIZE; within -= LDFS_PAGE_SIZE)
		at += *size++;
	while (!rc && length > 0) {
		uint64_t piece = LDFS_PAGE_SIZE - within;

		piece = piece < length ? piece : length;
		rc = read_page(d, c, at, *size, page);
		if (!rc)
			memcpy(to, page + within, piece);
		at += *size++;
		to += piece;
		length -= piece;
		within = 0;
	}
	return rc;
}

int ldfs_pack_read(const ldfs_dump *d, uint32_t g, uint64_t offset, void *buf, uint64_t length)
{
	struct codec *c;
	int rc;

	if (d->target.stream)
		return -EIO;
	c = ldfs_codec_open_reader();
	if (!c)
		return -ENOMEM;
	rc = read_pages(d, c, g, offset - ldfs_granule_start(d, g), buf, length);
	ldfs_codec_close(c);
	return rc;
}
