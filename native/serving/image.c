/* SPDX-License-Identifier: GPL-2.0-or-later */
/* image.c - reading one file of a living snapshot, piece by piece. */
#include <errno.h>
#include <string.h>

#include "serving/within.h"

/* The piece that holds the byte at `offset`, by bisection; `count` if that is behind the end. */
static uint64_t piece_at(const ldfs_image *image, uint64_t offset)
{
	uint64_t low = 0, high = image->count;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (image->pieces[middle].end > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Read the bytes [within, within + length) of a piece. */
static int read_piece(ldfs_dump *d, const ldfs_piece *piece, uint64_t within, void *buf,
		      uint64_t length)
{
	switch (piece->kind) {
	case LDFS_PIECE_ARENA:
		return ldfs_dump_read(d, piece->arena_offset + within, buf, length);
	case LDFS_PIECE_BYTES:
		memcpy(buf, piece->bytes + within, length);
		return 0;
	case LDFS_PIECE_ZEROS:
		memset(buf, 0, length);
		return 0;
	}
	return -EINVAL;
}

static int64_t read_pieces(const ldfs_image *image, ldfs_dump *d, uint64_t offset, uint8_t *buf,
			   uint64_t length)
{
	uint64_t i = piece_at(image, offset), done = 0;
	/* A read of nothing tells whether the dump was released. */
	int rc = ldfs_dump_read(d, 0, buf, 0);

	for (; !rc && done < length && i < image->count; i++) {
		uint64_t start = i ? image->pieces[i - 1].end : 0, at = offset + done;
		uint64_t left = image->pieces[i].end - at;
		uint64_t part = left < length - done ? left : length - done;

		rc = read_piece(d, &image->pieces[i], at - start, buf + done, part);
		done += part;
	}
	return rc ? rc : (int64_t)done;
}

int64_t ldfs_image_read(const ldfs_image *image, uint64_t offset, void *buf, uint64_t length)
{
	ldfs_dump *d = ldfs_gate_enter(image->gate);
	int64_t rc;

	if (!d)
		return -ENODATA;
	rc = read_pieces(image, d, offset, buf, length);
	ldfs_gate_leave(image->gate);
	return rc;
}
