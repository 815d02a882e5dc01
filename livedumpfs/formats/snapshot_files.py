# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of snapshot/ in the mount: images of an arena, and info.json. No copy of them is kept
in memory."""

from __future__ import annotations

import errno
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final

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
VMCORE: Final = "vmcore"
RAW: Final = "mem.raw"
KCORE: Final = "kcore"

ReadArena = Callable[[int, memoryview], None]
"""read(arena offset, view): fill the whole view. OSError EIO (the memory is lost) or ENODATA (the
dump was released), also for an empty view."""


class OpenFile(ABC):
    """One open file of snapshot/."""

    @abstractmethod
    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` from `offset` on. Returns the number of bytes, fewer than the view has only
        at the end of the file. OSError: EIO, ENODATA. ValueError: a negative offset."""

    def pread(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length), fewer at the end. Errors as in read_into."""
        found = bytearray(length)
        count = self.read_into(offset, memoryview(found))
        return bytes(memoryview(found)[:count])


MakeKcore = Callable[[Callable[[int, int], bytes]], Image]
"""Makes kcore by a function that reads bytes [address, address+length) of physical memory, fewer
where it ends, or raises OSError."""
OpenImage = Callable[[Image], OpenFile]


class ImageFile(OpenFile):
    """An image over an arena that Python reads."""

    def __init__(self, image: Image, read: ReadArena) -> None:
        self._image = image
        self._read = read

    def read_into(self, offset: int, view: memoryview) -> int:
        """See OpenFile."""
        done, asked = 0, False
        for piece in self._image.pieces(offset, len(view)):
            part = view[done : done + piece.length]
            if isinstance(piece, ArenaPiece):
                self._read(piece.arena_offset, part)
                asked = True
            else:
                part[:] = piece.data if isinstance(piece, Literal) else bytes(piece.length)
            done += piece.length
        if not asked:
            # The image's own bytes are refused, too, once the memory is released: this raises then.
            self._read(0, view[:0])
        return done


class _OpenInfo(OpenFile):
    """info.json. The text is made when it is read from the start, and kept for the following reads:
    a reader that takes it in pieces gets one text."""

    def __init__(self, text: Callable[[], bytes]) -> None:
        self._text = text
        self._kept: bytes | None = None

    def read_into(self, offset: int, view: memoryview) -> int:
        if offset < 0:
            raise ValueError(f"offset is negative: {offset}")
        now = self._text()
        if self._kept is None or offset == 0:
            self._kept = now
        data = self._kept[offset : offset + len(view)]
        view[: len(data)] = data
        return len(data)


class SnapshotFiles:
    """The files of one snapshot. Any thread may read any of them; no reader waits for another, but
    for those of kcore while the first one has it made."""

    def __init__(
        self,
        images: Sequence[Image],
        open_image: OpenImage,
        info: Callable[[], Mapping[str, object]],
        *,
        holes: int = 0,
        make_kcore: MakeKcore | None = None,
    ) -> None:
        """`images`: vmcore and mem.raw are among them. `open_image`: opens one. `info`: returns
        what info.json says now, in JSON types; OSError ENODATA after the dump is released. `holes`:
        bytes of the arena that are known to be zeros and need no room, at most. `make_kcore`: takes
        a moment, so it is called, once, when that file is asked for.
        """
        self._images = {image.name: image for image in images}
        self._make_kcore = make_kcore
        self._made_kcore: Image | None = None
        self._lock = threading.Lock()
        self._open_image = open_image
        self._info = info
        self._holes = holes

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files."""
        return (*self._images, *((KCORE,) if self._make_kcore else ()), INFO)

    def size(self, name: str) -> int:
        """Bytes; for info.json, its size now. FileNotFoundError; OSError of `info`."""
        return len(self.info_text()) if name == INFO else self._image(name).size

    def stored(self, name: str) -> int:
        """Bytes that are not holes, an upper bound of those that are not zero. FileNotFoundError;
        OSError of `info`."""
        # Each image shows the whole arena once. statfs asks for it, and must not wait for memory.
        if name == KCORE and self._make_kcore and self._made_kcore is None:
            name = VMCORE
        return self.size(name) if name == INFO else self._image(name).filled - self._holes

    def open(self, name: str) -> OpenFile:
        """Open one file. FileNotFoundError."""
        if name == INFO:
            return _OpenInfo(self.info_text)
        return self._open_image(self._image(name))

    def pread(self, name: str, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length) of one file; see OpenFile. FileNotFoundError."""
        return self.open(name).pread(offset, length)

    def _image(self, name: str) -> Image:
        if name == KCORE and self._make_kcore:
            return self._kcore(self._make_kcore)
        if name not in self._images:
            raise FileNotFoundError(errno.ENOENT, os_cause(errno.ENOENT), name)
        return self._images[name]

    def _kcore(self, make: MakeKcore) -> Image:
        with self._lock:
            if self._made_kcore is None:
                self._made_kcore = make(self.open(RAW).pread)
            return self._made_kcore

    def info_text(self) -> bytes:
        """info.json as it is now. OSError of `info`."""
        return json.dumps(self._info(), indent=1, default=str).encode() + b"\n"


def standard_images(
    machine: MachineInfo, arena_size: int, registers: Sequence[Registers] = ()
) -> list[Image]:
    """vmcore, mem.raw and mem.lime of one arena. UsageError: no layout can hold the machine."""
    return [
        vmcore_image(machine, arena_size, registers),
        raw_image(machine, arena_size),
        lime_image(machine, arena_size),
    ]
