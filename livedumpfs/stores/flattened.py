# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads makedumpfile's flattened form from a pipe: in it a dump comes in records of offset, length
and bytes, and a later record replaces an earlier one. docs/formats.md has it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import Final

import numpy as np

from livedumpfs.errors import InvalidDump, TargetError, os_cause
from livedumpfs.formats.kdump import FLAT_MAGIC

Take = Callable[[int, memoryview], None]
"""take(offset, data): these bytes are for that place. `data` is the callee's."""

_HEADER: Final = struct.Struct(">16sqq")
_HEADER_SIZE: Final = 4096
_RECORD: Final = struct.Struct(">qq")
_END: Final = (-1, -1)
_MOST: Final = 1 << 62
_PIECE: Final = 1 << 20
"""Most bytes of one call of Take. Longer records are cut at its multiples."""
_PIPE_SIZE: Final = 1 << 20


def widen(pipe: int) -> None:
    """Let the pipe hold as much as an unprivileged process may ask for: fewer switches between its
    two ends."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


def read_records(pipe: int, take: Take) -> None:
    """Give all that comes to `take`, up to the record that says that it is all. InvalidDump: it
    ends before, or is something else; TargetError: it cannot be read; and what `take` raises."""
    magic, kind, version = _HEADER.unpack_from(_read(pipe, _HEADER_SIZE))
    if not magic.startswith(FLAT_MAGIC) or (kind, version) != (1, 1):
        raise InvalidDump("what comes is no dump in makedumpfile's flattened form")
    while (record := _RECORD.unpack(_read(pipe, _RECORD.size))) != _END:
        offset, length = record
        end = offset + length
        if not (0 <= offset < _MOST and 0 <= length < _MOST):
            raise InvalidDump("a record has an impossible place or length")
        while offset < end:
            size = min(end - offset, _PIECE - offset % _PIECE)
            take(offset, _read(pipe, size))
            offset += size


def _read(pipe: int, length: int) -> memoryview:
    """So many bytes, in new memory."""
    view = np.empty(length, np.uint8).data
    done = 0
    while done < length:
        try:
            count = os.readv(pipe, [view[done:]])
        except OSError as error:
            code = error.errno or errno.EIO
            raise TargetError(f"cannot read the dump: {os_cause(code)}", errno=code) from error
        if not count:
            raise InvalidDump("the dump was broken off")
        done += count
    return view
