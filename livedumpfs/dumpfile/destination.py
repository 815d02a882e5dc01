# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a converted dump goes: a new file, a pipe, or records for a pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from abc import abstractmethod
from typing import Final, Protocol

from livedumpfs.closing import Closing
from livedumpfs.errors import MachineError, TargetError, os_cause
from livedumpfs.formats.kdump import FLAT_MAGIC
from livedumpfs.rights.folder import find_room, read_mounts
from livedumpfs.thread import without_signals

PIECE: Final = 1 << 20
"""Bytes in memory at once; whole pages."""

FLAT_HEADER_SIZE: Final = 4096
FLAT_TYPE: Final = 1
FLAT_VERSION: Final = 1
FLAT_HEADER: Final = struct.Struct(">16sqq")
FLAT_RECORD: Final = struct.Struct(">qq")
"""Offset and length of the bytes that follow; -1 and -1: all is there."""


class Placed(Protocol):
    """Takes a file in any order."""

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Bytes for that place. TargetError; BrokenPipeError."""

    def finish(self, size: int | None = None) -> None:
        """All is there; `size`: of the file. Places that were not written are zeros."""


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

    def finish(self, size: int | None = None) -> None:
        """All is there; `size`: of what was written in any order."""

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
    """A file that was not there before, with holes for zeros. Closed before finish() it goes, and
    so it does where a signal's handler raises before a `with` has it."""

    def __init__(self, path: str) -> None:
        """TargetError: EEXIST and whatever else keeps it from being made. MachineError EAGAIN."""
        self._finished = False
        self.fd = -1
        try:
            without_signals(f"make {path}", lambda: Output.__init__(self, _make(path), path))
        except MachineError:  # no thread
            raise
        except (OSError, ValueError) as error:
            code = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
            reason = getattr(error, "reason", "")
            if path in reason:
                raise TargetError(reason, errno=code) from error
            raise TargetError(
                f"cannot make {path}: {reason or os_cause(code)}", errno=code
            ) from error
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        self.close()

    def skip(self, length: int) -> None:
        """A hole."""
        try:
            os.lseek(self.fd, length, os.SEEK_CUR)
        except OSError as error:
            raise self._error("write", error) from error

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """Bytes for that place. TargetError."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self.fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise self._error("write", error) from error

    def finish(self, size: int | None = None) -> None:
        """Its size, also behind a last hole; and durable. TargetError."""
        try:
            os.ftruncate(self.fd, os.lseek(self.fd, 0, os.SEEK_CUR) if size is None else size)
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


def _make(path: str) -> int:
    """A new file, open; not among the kernel's. OSError."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os_cause(errno.EEXIST))
    found = find_room(path, read_mounts())
    assert found.folder
    try:
        return found.folder.make(os.path.basename(path), None)
    finally:
        found.folder.close()


class Flattened:
    """A file in makedumpfile's flattened form: records of offset and bytes, without seeking."""

    def __init__(self, output: Output) -> None:
        """Its header goes out at once. TargetError; BrokenPipeError."""
        self._output = output
        header = FLAT_HEADER.pack(FLAT_MAGIC, FLAT_TYPE, FLAT_VERSION)
        output.write(header.ljust(FLAT_HEADER_SIZE, b"\0"))

    def write_at(self, data: bytes | memoryview, offset: int) -> None:
        """One record. TargetError; BrokenPipeError."""
        if data:
            self._output.write(FLAT_RECORD.pack(offset, len(data)))
            self._output.write(data)

    def finish(self, size: int | None = None) -> None:
        """The record that says that all is there."""
        del size
        self._output.write(FLAT_RECORD.pack(-1, -1))
        self._output.finish()
