# SPDX-License-Identifier: GPL-2.0-or-later
"""From makedumpfile's flattened form, which a pipe can carry, back to the file that it stands for.

What is read is untrusted: no record makes more of the file than the bytes that follow it.
"""

from __future__ import annotations

import os
from typing import Final

from livedumpfs.dumpfile.destination import (
    FLAT_HEADER,
    FLAT_HEADER_SIZE,
    FLAT_RECORD,
    FLAT_TYPE,
    FLAT_VERSION,
    PIECE,
    NewFile,
)
from livedumpfs.dumpfile.reader import open_dump
from livedumpfs.errors import InvalidDump, TargetError, UsageError, os_cause
from livedumpfs.formats.kdump import FLAT_MAGIC

_MAX_OFFSET: Final = 1 << 62


class _Records:
    """The bytes of a file or pipe, from front to back."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self.path = fd, path

    def take(self, length: int) -> bytes:
        """So many bytes. InvalidDump: there are fewer; TargetError."""
        parts = []
        while length:
            part = self._read(length)
            if not part:
                raise self.invalid("it was broken off: its last record is missing")
            parts.append(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read(self, length: int) -> bytes:
        try:
            return os.read(self._fd, length)
        except OSError as error:
            code = error.errno or 0
            raise TargetError(f"cannot read {self.path}: {os_cause(code)}", errno=code) from error

    def invalid(self, why: str) -> InvalidDump:
        return InvalidDump(f"{self.path} is not a valid dump: {why}")


def is_flattened(path: str) -> bool:
    """True for a regular file that starts as that form does; False also for what cannot be read."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(FLAT_MAGIC)) == FLAT_MAGIC
    except OSError:
        return False


def rearrange(fd: int, path: str, output: NewFile, format: str) -> None:
    """Write the file that the records in `fd` stand for; it must be one of our dumps, of that
    format. `path`: of `fd`, for messages. InvalidDump: it is not, damaged, or was broken off;
    UsageError: of another format; TargetError."""
    source = _Records(fd, path)
    magic, kind, version = FLAT_HEADER.unpack_from(source.take(FLAT_HEADER_SIZE))
    if not magic.startswith(FLAT_MAGIC) or (kind, version) != (FLAT_TYPE, FLAT_VERSION):
        raise source.invalid("it is not in makedumpfile's flattened form")
    end = 0
    while True:
        offset, length = FLAT_RECORD.unpack(source.take(FLAT_RECORD.size))
        if (offset, length) == (-1, -1):
            break
        if not (0 <= offset < _MAX_OFFSET and 0 <= length < _MAX_OFFSET):
            raise source.invalid("one of its records has an impossible place or length")
        for at in range(0, length, PIECE):
            output.write_at(source.take(min(PIECE, length - at)), offset + at)
        end = max(end, offset + length) if length else end
    _expect_dump(source, output, format)
    output.finish(end)


def _expect_dump(source: _Records, output: NewFile, format: str) -> None:
    try:
        with open_dump(output.path) as dump:
            found = dump.format
    except InvalidDump as error:
        why = error.message.removeprefix(f"{output.path} is not a valid dump: ")
        raise source.invalid(why) from error
    if found != format:
        raise UsageError(
            f"what comes from {source.path} is a dump of format {found} in makedumpfile's "
            "flattened form",
            hint="name that as its <format>",
        )
