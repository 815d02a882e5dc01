# SPDX-License-Identifier: GPL-2.0-or-later
"""PipeTarget: a pipe that takes a dump, in the flattened form of makedumpfile."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from livedumpfs.core.capi import CData, ffi, lib
from livedumpfs.errors import UsageError
from livedumpfs.targets.check import target_error
from livedumpfs.targets.target import Kind, Target

Record = Callable[[int, bytes | memoryview], int]
"""Write these bytes for that offset of the file; none: all is there. 0 or -errno."""
RECORD_MOST = 128 << 10
"""Bytes that a Record takes at once."""
FORMAT = "kdump"
"""The only format that is read in this form."""
_HINTS = {errno.EPIPE: "nobody reads it any more", errno.ECANCELED: "nobody reads it"}


class PipeTarget(Target):
    """The writing end of a pipe. What is written goes out as records of offset and bytes; nothing
    can be read back. A reader that stands still holds up who writes, until that is given up."""

    def __init__(self, fd: int, path: str) -> None:
        """Take over an fd that has passed the checks. TargetError: no memory, no descriptor."""
        super().__init__(fd, path)
        self.kind = Kind.STREAM
        self.reads_zero = True
        out = ffi.new("ldfs_stream **")
        code = lib.ldfs_stream_open(fd, False, out)
        if code:
            raise target_error("write to", path, -code)
        self.stream: CData | None = out[0]
        self._elsewhere: Record | None = None

    def hand_over(self, record: Record) -> None:
        """From now on the machine's process writes to the pipe, and for us too: records of two
        would get mixed up. What we hold open is closed with us all the same."""
        self._elsewhere = record

    @property
    def size(self) -> int:
        """0: a pipe has none."""
        return 0

    def check(self, *, force: bool, ours: bool | None = None) -> None:
        """Nothing can be lost in a pipe."""

    def check_format(self, format: str) -> None:
        """UsageError unless the format can be written without seeking."""
        if format != FORMAT:
            raise UsageError(
                f"cannot dump to {self.path}: it is a pipe, and format {format} needs a device or "
                "a file",
                errno=errno.ESPIPE,
                hint=f"format {FORMAT} can go there",
            )

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """What is written within must be taken by the reader in that time, or fails: for INIT,
        which nothing but the reader could end."""
        timer = threading.Timer(seconds, lib.ldfs_stream_cancel, (self._open(),))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def expect_room(self, total_size: int) -> None:
        """There is always room."""

    def prepare(self, total_size: int) -> None:
        """Nothing was there."""

    def pread(self, length: int, offset: int) -> bytes:
        """TargetError ESPIPE."""
        raise target_error("read", self.path, errno.ESPIPE)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """One record. EPIPE: the reader has gone; ECANCELED: it stood still for too long, or the
        dump was released."""
        view = memoryview(data).cast("B")
        stream = self._open()
        if self._elsewhere:
            for at in range(0, len(view), RECORD_MOST):
                self._check(self._elsewhere(offset + at, view[at : at + RECORD_MOST]))
        elif view:
            self._check(lib.ldfs_stream_write(stream, ffi.from_buffer(view), len(view), offset))

    def _check(self, code: int) -> None:
        if code:
            raise target_error("write to", self.path, -code, _HINTS.get(-code, ""))

    def _open(self) -> CData:
        if self.stream is None:
            raise target_error("write to", self.path, errno.EBADF)
        return self.stream

    def zero(self, offset: int, length: int) -> None:
        """Nothing: what no record says is zeros."""

    def truncate(self, size: int) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing: the rest is the reader's."""

    def complete(self) -> None:
        """The last record, which says that all is there."""
        stream = self._open()
        self._check(self._elsewhere(0, b"") if self._elsewhere else lib.ldfs_stream_end(stream))

    def close(self) -> None:
        """Close: the reader sees the end, and without complete() before that some is missing."""
        if self.stream is not None:
            lib.ldfs_stream_close(self.stream)
            self.stream = None
        super().close()

    def abandon(self) -> None:
        """Close: nothing was made."""
        self.close()
