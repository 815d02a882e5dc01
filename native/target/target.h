/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * target.h - where a dump's bytes go: files and devices by extents, pipes, and pages through a
 * codec.
 *
 * It carries bytes, and refuses to decide anything: which bytes, when, in which format, and what an
 * error means for the dump is not known here. Pipes are `ldfs_stream` of ldfs.h.
 */
#ifndef LDFS_TARGET_H
#define LDFS_TARGET_H

#include "base/base.h"

/* ---------------------------------------------------------------- target.c */
struct ldfs_target {
	int fd;              /* -1: none */
	int direct_fd;       /* the same past the page cache (O_DIRECT); -1: none */
	_Atomic bool direct; /* that works */
	ldfs_stream *stream; /* NULL: fd is written */
	bool reads_zero;
	bool zero_range; /* the kernel can zero a range of it */
	bool zero_costs; /* and then may have to write the zeros out */
	ldfs_extent *extents;
	uint32_t extent_count;
};

int ldfs_target_init(struct ldfs_target *t, const ldfs_dump_config *config, uint64_t arena_size);
void ldfs_target_destroy(struct ldfs_target *t);
/* `direct`: past the page cache, where the target can. */
int ldfs_target_write(struct ldfs_target *t, uint64_t arena_offset, const void *buf,
		      uint64_t length, bool direct);
/* *written: bytes that were written out, or may have been, to do it. */
int ldfs_target_zero(struct ldfs_target *t, uint64_t arena_offset, uint64_t length,
		     uint64_t *written);
int ldfs_target_read(const struct ldfs_target *t, uint64_t arena_offset, void *buf,
		     uint64_t length);
/* `length` bytes of buf at offset `at` of the target, as a record when it is a stream. */
int ldfs_target_put(const struct ldfs_target *t, const void *buf, uint64_t length, uint64_t at);
/* Bytes from arena_offset on that lie together on the target, at *target_offset. */
uint64_t ldfs_target_run(const struct ldfs_target *t, uint64_t arena_offset,
			 uint64_t *target_offset);

/* ----------------------------------------------------------------- codec.c
 * One page at a time through zstd, zlib, lzo or snappy. The library's working memory is kept in a
 * struct codec, so that a thread that packs a million pages allocates once.
 */
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
int ldfs_codec_unpack(struct codec *c, uint32_t flags, const void *bytes, uint32_t size,
		      void *page);

#endif
