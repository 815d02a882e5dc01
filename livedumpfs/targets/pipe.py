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
from livedumpfs.thread import needing_threads, start_thread

Record = Callable[[int, bytes | memoryview], int]
"""record(offset, data): write these bytes for that offset of the file; no bytes: the dump is
complete. Returns 0 or -errno."""
RECORD_MOST = 128 << 10
"""Most bytes for one call of a Record."""
FORMATS = ("elf", "kdump")
"""What goes there: the formats that are one file, in any order."""
_HINTS = {errno.EPIPE: "no process reads it any more", errno.ECANCELED: "no process reads it"}


class PipeTarget(Target):
    """The writing end of a pipe. Data goes out as records of offset and bytes (makedumpfile's
    flattened form); nothing can be read back. A reader that stops reading blocks the writer until
    the dump is given up."""

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
        """From now on all records go through the machine's process: records of two processes would
        get mixed up. The descriptor here stays open, and close() closes it."""
        self._elsewhere = record

    @property
    def size(self) -> int:
        """0: a pipe has no size."""
        return 0

    def check(self, *, force: bool, ours: bool | None = None) -> None:
        """Accepts everything: a pipe holds no data that could be lost."""

    def check_format(self, format: str) -> None:
        """UsageError unless the format can be written without seeking."""
        if format not in FORMATS:
            raise UsageError(
                f"cannot dump to {self.path}: it is a pipe, and format {format} needs a device or "
                "a file",
                errno=errno.ESPIPE,
                hint=f"format {' or '.join(FORMATS)} can go there",
            )

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Within the block, writes fail when the reader has not taken the data after `seconds`.
        INIT needs this: nothing else could end a write there. MachineError EAGAIN: no thread for
        it."""
        timer = threading.Timer(seconds, lib.ldfs_stream_cancel, (self._open(),))
        timer.daemon = True
        with needing_threads(f"limit the time that {self.path} has to be read"):
            start_thread(timer)
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def expect_room(self, total_size: int) -> None:
        """Does nothing: a pipe has no limit."""

    def prepare(self, total_size: int) -> None:
        """Does nothing: a pipe holds no older data."""

    def pread(self, length: int, offset: int) -> bytes:
        """Always TargetError ESPIPE."""
        raise target_error("read", self.path, errno.ESPIPE)

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write one record. TargetError: EPIPE, the reader has closed the pipe; ECANCELED, it did
        not read for too long, or the dump was released."""
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
        """Does nothing: bytes without a record are zeros."""

    def truncate(self, size: int) -> None:
        """Does nothing."""

    def sync(self) -> None:
        """Does nothing: durability is up to the reader."""

    def complete(self) -> None:
        """Write the last record, which says that the dump is complete."""
        stream = self._open()
        self._check(self._elsewhere(0, b"") if self._elsewhere else lib.ldfs_stream_end(stream))

    def close(self) -> None:
        """Close. The reader sees the end of the file; without complete() before, it sees that data
        is missing."""
        if self.stream is not None:
            lib.ldfs_stream_close(self.stream)
            self.stream = None
        super().close()

    def abandon(self) -> None:
        """Close; no file was made."""
        self.close()
