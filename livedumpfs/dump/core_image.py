# SPDX-License-Identifier: GPL-2.0-or-later
"""CoreImage: a file of a living snapshot that the C core reads, from libfuse's threads too."""

from __future__ import annotations

from livedumpfs.core.capi import CData, ffi, lib
from livedumpfs.core.gate import Gate
from livedumpfs.dump.core_dump import snapshot_error
from livedumpfs.formats import ArenaPiece, Image, Literal
from livedumpfs.formats.snapshot_files import OpenFile


class CoreImage(OpenFile):
    """One image of the dump behind the gate."""

    def __init__(self, image: Image, gate: Gate) -> None:
        self._gate = gate
        pieces = list(image.pieces(0, image.size))
        self._bytes: list[CData] = []
        self._pieces = ffi.new("ldfs_piece[]", len(pieces))
        for to, one in zip(self._pieces, pieces, strict=True):
            to.end = one.offset + one.length
            to.kind = lib.LDFS_PIECE_ZEROS
            if isinstance(one, ArenaPiece):
                to.kind, to.arena_offset = lib.LDFS_PIECE_ARENA, one.arena_offset
            elif isinstance(one, Literal):
                self._bytes.append(ffi.from_buffer(one.data))
                to.kind, to.bytes = lib.LDFS_PIECE_BYTES, self._bytes[-1]
        self.handle: CData = ffi.new("ldfs_image *", (gate.handle, self._pieces, len(pieces)))
        """struct ldfs_image, as long as this object."""

    def read_into(self, offset: int, view: memoryview) -> int:
        """See OpenFile."""
        if offset < 0:
            raise ValueError(f"offset is negative: {offset}")
        buffer = ffi.from_buffer("char[]", view, require_writable=True)
        found = int(lib.ldfs_image_read(self.handle, offset, buffer, len(view)))
        if found < 0:
            raise snapshot_error(-found, offset, len(view))
        return found
