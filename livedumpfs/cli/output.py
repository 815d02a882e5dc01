# SPDX-License-Identifier: GPL-2.0-or-later
"""All output of a command. Output never decides about the command: when it cannot be written, it is
dropped; characters that the terminal cannot show are escaped.

It is written to the descriptor without Python's buffer: Python would write a failed buffer again at
its end, and fail then.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import Final, TextIO, cast

from livedumpfs.errors import os_cause

INPUT_FD: Final = 0
OUTPUT_FD: Final = 1
ERROR_FD: Final = 2
READER_LEFT: Final = (errno.EPIPE, errno.EBADF)
"""The reader has gone, or there was none: no error is reported."""


closed: Final[set[int]] = set()
"""Those of descriptors 0, 1 and 2 that were closed when this process was started."""


def keep_descriptors() -> None:
    """Open /dev/null on those of descriptors 0, 1 and 2 that are closed. Else a file that is opened
    later would get the number, and the output. They still cannot be used."""
    for number in (INPUT_FD, OUTPUT_FD, ERROR_FD):
        try:
            os.fstat(number)
        except OSError:
            closed.add(number)
            wrong_way = os.O_WRONLY if number == INPUT_FD else os.O_RDONLY
            os.set_inheritable(os.open(os.devnull, wrong_way), True)


class _Manner:
    quiet = False
    for_programs = False


def be_quiet(quiet: bool, for_programs: bool = False) -> None:
    """Whether `--quiet` was given: what is for people alone is not printed; and whether standard
    output is for programs: then reports are not."""
    _Manner.quiet, _Manner.for_programs = quiet, for_programs


def is_quiet() -> bool:
    """Whether notes, reports and progress are not wanted."""
    return _Manner.quiet


def report(text: str) -> None:
    """Print lines about what a step did on standard output, unless they are not wanted."""
    if not (_Manner.quiet or _Manner.for_programs):
        say(text)


def say(text: str, *, quiet: bool = False) -> OSError | None:
    """Print lines on standard output. Returns the error, if any, which is also reported on standard
    error unless `quiet`."""
    problem = _put(sys.stdout, f"{text}\n")
    if problem and not quiet and problem.errno not in READER_LEFT:
        tell(f"livedump: {cannot_say(problem)}")
    return problem


def pass_on(data: bytes) -> None:
    """Bytes of a machine's console on standard output, as they are: they are for a terminal."""
    with contextlib.suppress(OSError):
        _write(OUTPUT_FD, data)


def tell(text: str) -> None:
    """Print lines on standard error."""
    _put(sys.stderr, f"{text}\n")


def cannot_say(problem: OSError) -> str:
    """The sentence about an error of standard output."""
    return f"cannot write to standard output: {os_cause(problem.errno or errno.EIO)}"


def shielded(stream: TextIO | None) -> TextIO:
    """The stream for a library that prints by itself: its writes never fail."""
    return cast(TextIO, _Shielded(stream))


class _Shielded(io.TextIOBase):
    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the terminal."""
        return _encoding(self._stream)

    def fileno(self) -> int:
        """OSError: there is none."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Also False for a terminal that has gone."""
        return is_terminal(self._stream)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Never fails."""
        _put(self._stream, text)
        return len(text)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether it is a terminal, which people read."""
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stream.isatty()
    return False


def is_journal(number: int = ERROR_FD) -> bool:
    """Whether the descriptor leads to systemd's journal, as a service's does: systemd.exec(5)."""
    named = os.environ.get("JOURNAL_STREAM", "")
    with contextlib.suppress(OSError):
        found = os.fstat(number)
        return named == f"{found.st_dev}:{found.st_ino}"
    return False


def _encoding(stream: TextIO | None) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _put(stream: TextIO | None, text: str) -> OSError | None:
    """Write all of `data` at once. Returns the error, if any."""
    if stream is None:
        return OSError(errno.EBADF, os_cause(errno.EBADF))
    encoding = _encoding(stream)
    data = text.encode(encoding, "backslashreplace")
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        # A stream without a descriptor, as in tests.
        stream.write(data.decode(encoding))
        return None
    try:
        _write(number, data)
    except OSError as error:
        return error
    return None


def _write(number: int, data: bytes) -> None:
    """Write all bytes, even if another process has made the descriptor non-blocking. OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(number, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(number, select.POLLOUT)
            poll.poll()
