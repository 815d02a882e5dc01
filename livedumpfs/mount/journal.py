# SPDX-License-Identifier: GPL-2.0-or-later
"""Journal: records with fields for systemd's journal, by its native protocol.

The protocol is a datagram on a Unix socket, documented (systemd.io/JOURNAL_NATIVE_PROTOCOL) and
promised to stay. python-systemd and cysystemd do the same through libsystemd, which would have to
be there with its headers and a compiler, and their call waits while the journal is full. A host
must not: a record that the journal does not take at once is dropped, and counted in the next one.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Mapping
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.errors import HostError, os_cause

SOCKET: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "livedump"
LONGEST: Final = 8192
"""Bytes of a value; a longer one is cut, and says so. So a record is no longer than a datagram
may be, and needs no file beside it."""
UNLOGGED: Final = "LIVEDUMP_UNLOGGED"
"""How many records were dropped since the last one."""
_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

FieldValue = str | int
Fields = Mapping[str, FieldValue]


def encode(fields: Fields) -> bytes:
    """A record. ValueError: a name that the journal does not take."""
    parts = []
    for name, value in fields.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"not the name of a field: {name!r}")
        data = _cut(_bytes(str(value)))
        # A value of one line is text; of any other the length comes first.
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), data))
    return b"".join(parts)


def _bytes(text: str) -> bytes:
    """A path's own bytes, whatever they are."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # surrogates of another kind
        return text.encode(errors="backslashreplace")


def _cut(data: bytes) -> bytes:
    if len(data) <= LONGEST:
        return data
    mark = b"... (%d bytes in all)" % len(data)
    end = LONGEST - len(mark)
    # Not within a character of UTF-8, whose other bytes begin with the bits 10.
    while end > LONGEST - len(mark) - 3 and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[:end] + mark


class Journal(Closing):
    """Any thread may send."""

    def __init__(self, path: str | None = None) -> None:
        """`path`: of its socket; None: SOCKET. HostError: nothing listens there."""
        self._path = SOCKET if path is None else path
        self._lock = threading.Lock()
        self._dropped = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as tried:
                tried.connect(self._path)
        except OSError as error:
            self._socket.close()
            code = error.errno or 0
            raise HostError(
                f"cannot log to systemd's journal: {self._path}: {os_cause(code)}", errno=code
            ) from error

    def send(self, fields: Fields) -> None:
        """One record. Never waits, and never fails for what is on the other side."""
        with self._lock:
            more = {UNLOGGED: self._dropped} if self._dropped else {}
            record = encode({**fields, "SYSLOG_IDENTIFIER": IDENTIFIER, **more})
            try:
                # By its path: the journal may have been started anew.
                self._socket.sendto(record, socket.MSG_DONTWAIT, self._path)
                self._dropped = 0
            except OSError:
                self._dropped += 1

    def close(self) -> None:
        """Nothing that was sent is lost."""
        with contextlib.suppress(OSError):
            self._socket.close()
