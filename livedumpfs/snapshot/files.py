# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of snapshot/: images of an arena, and info.json. Nothing of them is kept in memory."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from livedumpfs.errors import os_cause
from livedumpfs.formats import (
    ArenaPiece,
    Image,
    Literal,
    MachineInfo,
    Registers,
    lime_image,
    raw_image,
    vmcore_image,
)

INFO: Final = "info.json"
CHUNK: Final = 128 << 10
"""Bytes of the arena that are read in one go."""

ReadArena = Callable[[int, int], bytes]
"""read(arena offset, length): all of it, or OSError EIO (lost) or ENODATA (released)."""


class OpenFile(Protocol):
    """One open file of snapshot/."""

    def pread(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length), fewer at the end. OSError EIO, ENODATA; ValueError: a
        negative number."""


class _OpenImage:
    def __init__(self, image: Image, read: ReadArena) -> None:
        self._image = image
        self._read = read

    def pread(self, offset: int, length: int) -> bytes:
        parts = list(self._parts(offset, length))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _parts(self, offset: int, length: int) -> Iterator[bytes]:
        # What is not memory is there as long as the memory is: an empty read asks for that.
        self._read(0, 0)
        for piece in self._image.pieces(offset, length):
            if isinstance(piece, Literal):
                yield piece.data
            elif isinstance(piece, ArenaPiece):
                yield from self._memory(piece)
            else:
                yield bytes(piece.length)

    def _memory(self, piece: ArenaPiece) -> Iterator[bytes]:
        end = piece.arena_offset + piece.length
        for at in range(piece.arena_offset, end, CHUNK):
            yield self._read(at, min(CHUNK, end - at))


class _OpenInfo:
    """Made up anew when it is read from the start, so that a reader in pieces gets one answer."""

    def __init__(self, text: Callable[[], bytes]) -> None:
        self._text = text
        self._kept: bytes | None = None

    def pread(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError(f"range is negative: {offset}, {length}")
        now = self._text()
        if self._kept is None or offset == 0:
            self._kept = now
        return self._kept[offset : offset + length]


class SnapshotFiles:
    """Files over one snapshot. Any thread may read any of them; none waits for another."""

    def __init__(
        self,
        images: Sequence[Image],
        read: ReadArena,
        info: Callable[[], Mapping[str, object]],
    ) -> None:
        """`info`: what info.json says now, JSON types; OSError ENODATA once there is nothing."""
        self._images = {image.name: image for image in images}
        self._read = read
        self._info = info

    @property
    def names(self) -> tuple[str, ...]:
        """All files."""
        return (*self._images, INFO)

    def size(self, name: str) -> int:
        """Bytes; of info.json, now. FileNotFoundError; OSError of `info`."""
        return len(self._text()) if name == INFO else self._image(name).size

    def open(self, name: str) -> OpenFile:
        """One file. FileNotFoundError."""
        if name == INFO:
            return _OpenInfo(self._text)
        return _OpenImage(self._image(name), self._read)

    def pread(self, name: str, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length) of one file; see OpenFile. FileNotFoundError."""
        return self.open(name).pread(offset, length)

    def _image(self, name: str) -> Image:
        if name not in self._images:
            raise FileNotFoundError(errno.ENOENT, os_cause(errno.ENOENT), name)
        return self._images[name]

    def _text(self) -> bytes:
        return json.dumps(self._info(), indent=1, default=str).encode() + b"\n"


def standard_images(
    machine: MachineInfo, arena_size: int, registers: Sequence[Registers] = ()
) -> list[Image]:
    """vmcore, mem.raw and mem.lime of one arena. UsageError: no layout holds the machine."""
    return [
        vmcore_image(machine, arena_size, registers),
        raw_image(machine, arena_size),
        lime_image(machine, arena_size),
    ]
