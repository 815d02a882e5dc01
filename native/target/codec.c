/* SPDX-License-Identifier: GPL-2.0-or-later */
/* codec.c - the four compression libraries behind one pair of functions. None is [signal]. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lzo/lzo1x.h>
#include <snappy-c.h>
#include <zlib.h>
#include <zstd.h>

#include "target/target.h"

/*
 * More than the libraries need in the worst case for one page: lzo page + page/16 + 67 bytes,
 * snappy 32 + page * 7/6 bytes.
 */
#define SCRATCH (2 * LDFS_PAGE_SIZE)
/* The fastest of zstd's usual levels: a dump is large, and time counts more than size. */
#define ZSTD_DEFAULT_LEVEL 1
#define ZLIB_DEFAULT_LEVEL Z_BEST_SPEED

struct codec {
	uint32_t codec;
	int level;
	ZSTD_CCtx *zstd;
	ZSTD_DCtx *unzstd;
	z_stream deflate, inflate;
	bool deflates, inflates;
	void *lzo_work;
	uint8_t scratch[SCRATCH];
};

bool ldfs_codec_check(uint32_t codec, int level)
{
	switch (codec) {
	case LDFS_CODEC_ZSTD:
		return level >= 0 && level <= ZSTD_maxCLevel();
	case LDFS_CODEC_ZLIB:
		return level >= 0 && level <= Z_BEST_COMPRESSION;
	case LDFS_CODEC_NONE:
	case LDFS_CODEC_LZO:
	case LDFS_CODEC_SNAPPY:
		return level == 0;
	}
	return false;
}

/* ------------------------------------------------------------------- packing */

static bool open_packer(struct codec *c)
{
	switch (c->codec) {
	case LDFS_CODEC_ZSTD:
		c->level = c->level ? c->level : ZSTD_DEFAULT_LEVEL;
		c->zstd = ZSTD_createCCtx();
		return c->zstd != NULL;
	case LDFS_CODEC_ZLIB:
		c->level = c->level ? c->level : ZLIB_DEFAULT_LEVEL;
		c->deflates = deflateInit(&c->deflate, c->level) == Z_OK;
		return c->deflates;
	case LDFS_CODEC_LZO:
		c->lzo_work = malloc(LZO1X_1_MEM_COMPRESS);
		return c->lzo_work && lzo_init() == LZO_E_OK;
	}
	return true;
}

struct codec *ldfs_codec_open(uint32_t codec, int level)
{
	struct codec *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->codec = codec;
	c->level = level;
	if (open_packer(c))
		return c;
	ldfs_codec_close(c);
	return NULL;
}

struct codec *ldfs_codec_open_reader(void)
{
	return calloc(1, sizeof(struct codec));
}

void ldfs_codec_close(struct codec *c)
{
	if (!c)
		return;
	ZSTD_freeCCtx(c->zstd);
	ZSTD_freeDCtx(c->unzstd);
	if (c->deflates)
		deflateEnd(&c->deflate);
	if (c->inflates)
		inflateEnd(&c->inflate);
	free(c->lzo_work);
	free(c);
}

static size_t deflate_page(struct codec *c, const void *page)
{
	z_stream *z = &c->deflate;

	if (deflateReset(z) != Z_OK)
		return LDFS_PAGE_SIZE;
	z->next_in = (Bytef *)page;
	z->avail_in = LDFS_PAGE_SIZE;
	z->next_out = c->scratch;
	z->avail_out = SCRATCH;
	return deflate(z, Z_FINISH) == Z_STREAM_END ? SCRATCH - z->avail_out : LDFS_PAGE_SIZE;
}

/*
 * Compress a page to scratch; returns its size there. LDFS_PAGE_SIZE or more: it did not get
 * smaller, or the library failed; the page is then stored as it is.
 */
static size_t compress_page(struct codec *c, const void *page)
{
	size_t size = SCRATCH;
	lzo_uint out = SCRATCH;

	switch (c->codec) {
	case LDFS_CODEC_ZSTD:
		/* An error code of zstd is a huge number. */
		return ZSTD_compressCCtx(c->zstd, c->scratch, SCRATCH, page, LDFS_PAGE_SIZE,
					 c->level);
	case LDFS_CODEC_ZLIB:
		return deflate_page(c, page);
	case LDFS_CODEC_LZO:
		if (lzo1x_1_compress(page, LDFS_PAGE_SIZE, c->scratch, &out, c->lzo_work) ==
		    LZO_E_OK)
			return out;
		return LDFS_PAGE_SIZE;
	case LDFS_CODEC_SNAPPY:
		if (snappy_compress(page, LDFS_PAGE_SIZE, (char *)c->scratch, &size) == SNAPPY_OK)
			return size;
		return LDFS_PAGE_SIZE;
	}
	return LDFS_PAGE_SIZE;
}

uint32_t ldfs_codec_pack(struct codec *c, const void *page, void *out)
{
	size_t size;

	if (ldfs_all_zero(page, LDFS_PAGE_SIZE))
		return 0;
	size = compress_page(c, page);
	if (size >= LDFS_PAGE_SIZE) {
		memcpy(out, page, LDFS_PAGE_SIZE);
		return LDFS_PAGE_SIZE;
	}
	memcpy(out, c->scratch, size);
	return (uint32_t)size;
}

/* ----------------------------------------------------------------- unpacking */

static int unzstd(struct codec *c, const void *bytes, uint32_t size, void *page)
{
	if (!c->unzstd)
		c->unzstd = ZSTD_createDCtx();
	if (!c->unzstd)
		return -ENOMEM;
	return ZSTD_decompressDCtx(c->unzstd, page, LDFS_PAGE_SIZE, bytes, size) == LDFS_PAGE_SIZE
		       ? 0
		       : -EBADMSG;
}

static int inflate_page(struct codec *c, const void *bytes, uint32_t size, void *page)
{
	z_stream *z = &c->inflate;

	if (!c->inflates)
		c->inflates = inflateInit(z) == Z_OK;
	if (!c->inflates || inflateReset(z) != Z_OK)
		return -ENOMEM;
	z->next_in = (Bytef *)bytes;
	z->avail_in = size;
	z->next_out = page;
	z->avail_out = LDFS_PAGE_SIZE;
	return inflate(z, Z_FINISH) == Z_STREAM_END && z->avail_out == 0 ? 0 : -EBADMSG;
}

static int unlzo(const void *bytes, uint32_t size, void *page)
{
	lzo_uint out = LDFS_PAGE_SIZE;

	return lzo1x_decompress_safe(bytes, size, page, &out, NULL) == LZO_E_OK &&
			       out == LDFS_PAGE_SIZE
		       ? 0
		       : -EBADMSG;
}

static int unsnappy(const void *bytes, uint32_t size, void *page)
{
	size_t out = 0;

	if (snappy_uncompressed_length(bytes, size, &out) != SNAPPY_OK || out != LDFS_PAGE_SIZE)
		return -EBADMSG;
	return snappy_uncompress(bytes, size, page, &out) == SNAPPY_OK ? 0 : -EBADMSG;
}

int ldfs_codec_unpack(struct codec *c, uint32_t flags, const void *bytes, uint32_t size, void *page)
{
	switch (flags) {
	case LDFS_CODEC_NONE:
		if (size != LDFS_PAGE_SIZE)
			return -EBADMSG;
		memcpy(page, bytes, LDFS_PAGE_SIZE);
		return 0;
	case LDFS_CODEC_ZSTD:
		return unzstd(c, bytes, size, page);
	case LDFS_CODEC_ZLIB:
		return inflate_page(c, bytes, size, page);
	case LDFS_CODEC_LZO:
		return unlzo(bytes, size, page);
	case LDFS_CODEC_SNAPPY:
		return unsnappy(bytes, size, page);
	}
	return -EBADMSG;
}
