/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * target.h - where a dump's bytes go: files and devices by extents, pipes, and pages through a
 * codec.
 *
 * It moves bytes and refuses to decide anything: it does not know which bytes are written when, in
 * which format, and what an error means for the dump. Pipes are `ldfs_stream` of ldfs.h.
 *
 * Functions that return int return 0 or -errno. All are [any thread] (see ldfs.h), unless they say
 * otherwise; none is [signal].
 */
#ifndef LDFS_TARGET_H
#define LDFS_TARGET_H

#include "base/base.h"

/* ---------------------------------------------------------------- target.c */
struct ldfs_target {
	int fd;              /* -1: none */
	int direct_fd;       /* the same, opened with O_DIRECT; -1: none */
	_Atomic bool direct; /* direct_fd works */
	ldfs_stream *stream; /* NULL: not a pipe, fd is written */
	bool reads_zero;
	_Atomic bool zero_range; /* the kernel can zero a range of fd */
	bool zero_costs;         /* and may have to write zeros to do so */
	ldfs_extent *extents;
	uint32_t extent_count;
};

int ldfs_target_init(struct ldfs_target *t, const ldfs_dump_config *config, uint64_t arena_size);
void ldfs_target_destroy(struct ldfs_target *t);
/*
 * Write `length` bytes of the arena from offset arena_offset on. `direct`: past the page cache,
 * where the target can do that; buf and lengths are whole pages then.
 */
int ldfs_target_write(struct ldfs_target *t, uint64_t arena_offset, const void *buf,
		      uint64_t length, bool direct);
/*
 * Make the same range read as zeros. *written grows by the bytes that were written to do so, or
 * that the kernel may have written.
 */
int ldfs_target_zero(struct ldfs_target *t, uint64_t arena_offset, uint64_t length,
		     uint64_t *written);
int ldfs_target_read(const struct ldfs_target *t, uint64_t arena_offset, void *buf,
		     uint64_t length);
/* Write `length` bytes of buf at offset `at` of the target; for a pipe, as one record. */
int ldfs_target_put(const struct ldfs_target *t, const void *buf, uint64_t length, uint64_t at);
/*
 * The number of bytes from arena_offset on that are contiguous on the target; they begin at
 * *target_offset there.
 */
uint64_t ldfs_target_run(const struct ldfs_target *t, uint64_t arena_offset,
			 uint64_t *target_offset);

/* ----------------------------------------------------------------- codec.c
 * One page at a time through zstd, zlib, lzo or snappy. The working memory of the libraries is kept
 * in a struct codec, so that a thread which packs a million pages allocates it once.
 */
struct codec; /* used by one thread at a time */

/* Whether `codec` is one of enum ldfs_codec and supports that level; level 0 is its default. */
bool ldfs_codec_check(uint32_t codec, int level);
/* Make a codec for packing, checked with ldfs_codec_check before. NULL: no memory. */
struct codec *ldfs_codec_open(uint32_t codec, int level);
/* Make a codec for unpacking pages of any codec. NULL: no memory. */
struct codec *ldfs_codec_open_reader(void);
void ldfs_codec_close(struct codec *c);
/*
 * Pack one page into `out`, which has room for LDFS_PAGE_SIZE bytes. Returns the bytes used: 0 for
 * a page of zeros, LDFS_PAGE_SIZE if it is stored as it is.
 */
uint32_t ldfs_codec_pack(struct codec *c, const void *page, void *out);
/*
 * Unpack `size` bytes to one page. `flags`: enum ldfs_codec that they were packed with. 0;
 * -EBADMSG: damaged, or no such codec; -ENOMEM.
 */
int ldfs_codec_unpack(struct codec *c, uint32_t flags, const void *bytes, uint32_t size,
		      void *page);

#endif
