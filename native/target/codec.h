/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * codec.h - one page at a time through zstd, zlib, lzo or snappy. The library's working memory is kept
 * in a struct codec, so that a thread that packs a million pages allocates once.
 */
#ifndef LDFS_CODEC_H
#define LDFS_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include "ldfs.h"

struct codec; /* of one thread */

/* Whether there is such a codec, and it takes that level; 0: its default. */
bool ldfs_codec_check(uint32_t codec, int level);
/* For packing. NULL: no memory. */
struct codec *ldfs_codec_open(uint32_t codec, int level);
/* For unpacking, whatever a page is packed with. NULL: no memory. */
struct codec *ldfs_codec_open_reader(void);
void ldfs_codec_close(struct codec *c);
/*
 * Pack one page into `out`, LDFS_PAGE_SIZE bytes of room. The bytes used: 0 for a page of zeros,
 * LDFS_PAGE_SIZE when it is stored as it is.
 */
uint32_t ldfs_codec_pack(struct codec *c, const void *page, void *out);
/* Unpack `size` bytes to one page. 0; -EBADMSG: damaged, or no such codec; -ENOMEM. */
int ldfs_codec_unpack(struct codec *c, uint32_t flags, const void *bytes, uint32_t size, void *page);

#endif
