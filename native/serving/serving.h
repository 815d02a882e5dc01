/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * serving.h - the files of a living snapshot, read by libfuse's threads without Python.
 *
 * An image of a dump is a list of pieces: bytes of its own, zeros, and ranges of the arena at its
 * instant. A read of one takes no lock here and does not wait for Python's interpreter lock. This
 * directory refuses to know paths, rights and attributes: Python opens a file and closes it.
 */
#ifndef LDFS_SERVING_H
#define LDFS_SERVING_H

#include "ldfs.h"

/* cffi: begin */

/* -------------------------------------------------------------------- gate.c */

/*
 * The way to a dump that may be freed meanwhile: it lets readers in until it is closed. A gate is
 * freed after all images that refer to it.
 */
typedef struct ldfs_gate ldfs_gate;

/* NULL: no memory. */
ldfs_gate *ldfs_gate_new(ldfs_dump *d);
/*
 * Let no reader in from now on. Returns 0 when none is inside any more: then the dump may be freed.
 * -EBUSY: ask again. Readers leave soon after the dump's RELEASE.
 */
int ldfs_gate_close(ldfs_gate *gate);
void ldfs_gate_free(ldfs_gate *gate);

/* ------------------------------------------------------------------- image.c */

/* What a piece of a file shows. */
enum ldfs_piece_kind {
	LDFS_PIECE_ZEROS,
	LDFS_PIECE_BYTES, /* those at `bytes` */
	LDFS_PIECE_ARENA, /* the snapshot from `arena_offset` on */
};

typedef struct {
	uint64_t end; /* offset in the file of the first byte behind the piece */
	enum ldfs_piece_kind kind;
	const uint8_t *bytes;
	uint64_t arena_offset;
} ldfs_piece;

/* A file. The pieces cover it from offset 0 on, in order, without a break; none is empty. */
typedef struct {
	ldfs_gate *gate;
	const ldfs_piece *pieces;
	uint64_t count;
} ldfs_image;

/*
 * Read the bytes [offset, offset + length) of the file. Returns how many, fewer only at its end.
 * -ENODATA: the dump was released, also for a piece that is not of the arena; -EIO: a granule is
 * lost. Any thread.
 */
int64_t ldfs_image_read(const ldfs_image *image, uint64_t offset, void *buf, uint64_t length);

/* -------------------------------------------------------------------- fuse.c */

/* libfuse 2's operation `read`; `info` is its struct fuse_file_info. */
typedef int ldfs_fuse_reader(const char *path, char *buf, size_t size, int64_t offset, void *info);

/* What the file handle of an open file points to, in a mount whose `read` is ldfs_fuse_read. */
typedef struct {
	const ldfs_image *image;  /* NULL: not an image */
	ldfs_fuse_reader *others; /* reads what is no image */
} ldfs_open_file;

/* struct fuse_file_info of libfuse 2.6 to 2.9, as far as it is needed here. */
typedef struct {
	int flags;
	unsigned long old_handle;
	int writepage;
	unsigned int bits;
	uint64_t handle;
} ldfs_fuse_file;

int ldfs_fuse_read(const char *path, char *buf, size_t size, int64_t offset, void *info);

/* cffi: end */

#endif
