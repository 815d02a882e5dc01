# SPDX-License-Identifier: GPL-2.0-or-later
"""From a dump to a plain image in another file: nothing of ours is in it, no table and no verdict.

So there is one way for all formats, and for a pipe: the images of snapshot/, from front to back.
"""

from __future__ import annotations

import contextlib
import errno
import os
from abc import abstractmethod
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.closing import Closing
from livedumpfs.errors import InvalidDump, TargetError, os_cause
from livedumpfs.formats import ArenaPiece, Literal, table
from livedumpfs.snapshot.checksums import Progress
from livedumpfs.snapshot.dumpfile import DumpFile, runs
from livedumpfs.snapshot.stored import images_of, missing_pages, state_runs
from livedumpfs.units import PAGE_SIZE

IMAGES: Final = {"elf": "vmcore", "raw": "mem.raw", "lime": "mem.lime"}
"""Formats, and the files of snapshot/ that they are."""
PIECE: Final = 1 << 20
"""Bytes in memory at once; whole pages."""


class Output(Closing):
    """Takes an image from front to back."""

    def __init__(self, fd: int, path: str) -> None:
        """`path`: for messages."""
        self.fd = fd
        self.path = path

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes. TargetError; BrokenPipeError."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self.fd, view) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._error("write", error) from error

    @abstractmethod
    def skip(self, length: int) -> None:
        """The next bytes are zeros."""

    def finish(self) -> None:
        """All is there."""

    def _error(self, action: str, error: OSError) -> TargetError:
        code = error.errno or 0
        return TargetError(f"cannot {action} {self.path}: {os_cause(code)}", errno=code)


class Stream(Output):
    """A pipe, or whatever standard output is. Its fd stays open."""

    def skip(self, length: int) -> None:
        """Zeros have to be written."""
        zeros = memoryview(bytes(min(length, PIECE)))
        while length > 0:
            self.write(zeros[:length])
            length -= min(length, PIECE)

    def close(self) -> None:
        """Not ours to close."""


class NewFile(Output):
    """A file that was not there before, with holes for zeros. Closed before finish() it goes."""

    def __init__(self, path: str) -> None:
        """TargetError: EEXIST and whatever else keeps it from being made."""
        self._finished = False
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            super().__init__(os.open(path, flags, 0o600), path)
        except (OSError, ValueError) as error:
            code = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
            raise TargetError(f"cannot make {path}: {os_cause(code)}", errno=code) from error

    def skip(self, length: int) -> None:
        """A hole."""
        try:
            os.lseek(self.fd, length, os.SEEK_CUR)
        except OSError as error:
            raise self._error("write", error) from error

    def finish(self) -> None:
        """Its size, also behind a last hole; and durable. TargetError."""
        try:
            os.ftruncate(self.fd, os.lseek(self.fd, 0, os.SEEK_CUR))
            os.fsync(self.fd)
        except OSError as error:
            raise self._error("write", error) from error
        self._finished = True

    def close(self) -> None:
        """Close it; take away a part of an image."""
        if self.fd < 0:
            return
        if not self._finished:
            with contextlib.suppress(OSError):
                mine, there = os.fstat(self.fd), os.stat(self.path, follow_symlinks=False)
                if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                    os.unlink(self.path)
        os.close(self.fd)
        self.fd = -1


def refuse_inconsistent(dump: DumpFile) -> None:
    """InvalidDump unless the dump is consistent: an image cannot say which pages are no good."""
    if dump.verdict != "consistent":
        raise InvalidDump(
            f"{dump.path} is {dump.verdict}: {missing_pages(dump)} pages are missing",
            hint="--force writes zeros there",
        )


def convert_dump(
    dump: DumpFile, format: str, output: Output, progress: Progress | None = None
) -> None:
    """Write the image of that format (a key of IMAGES); zeros for missing pages. OSError: the
    dump's target cannot be read; InvalidDump; errors of `output`."""
    image = images_of(dump)[IMAGES[format]]
    buffer = memoryview(bytearray(PIECE))
    for piece in image.pieces(0, image.size):
        if isinstance(piece, Literal):
            output.write(piece.data)
        elif isinstance(piece, ArenaPiece):
            for inside in range(0, piece.length, PIECE):
                length = min(PIECE, piece.length - inside)
                _copy(dump, piece.arena_offset + inside, length, output, buffer)
                if progress is not None:
                    progress(piece.offset + inside + length, image.size)
        else:
            output.skip(piece.length)
    output.finish()


def _copy(dump: DumpFile, offset: int, length: int, output: Output, buffer: memoryview) -> None:
    """One piece of the arena, at most as long as the buffer."""
    for at, size, state in state_runs(dump, offset, length):
        if state != table.SAVED:
            output.skip(size)
            continue
        part = buffer[:size]
        dump.read_stored(at, part)
        _write_pages(part, output)


def _write_pages(data: memoryview, output: Output) -> None:
    """Pages of zeros are skipped."""
    words = np.frombuffer(data, np.uint64) != 0
    filled: npt.NDArray[np.bool_] = words.reshape(-1, PAGE_SIZE // 8).any(axis=1)
    at = 0
    for first, end in runs(filled):
        output.skip(first * PAGE_SIZE - at)
        output.write(data[first * PAGE_SIZE : end * PAGE_SIZE])
        at = end * PAGE_SIZE
    output.skip(len(data) - at)
