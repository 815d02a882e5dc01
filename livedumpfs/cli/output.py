# SPDX-License-Identifier: GPL-2.0-or-later
"""All that a command prints goes through here, and nothing of it decides over the command: where it
cannot be written it is dropped, what the terminal cannot show is escaped.

Straight to the descriptor: what Python buffers it tries again at its end, and fails then.
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
"""It went away, or there never was one: it does not want to know."""


closed: Final[set[int]] = set()
"""Of the three standard descriptors those that were closed when this process was started."""


def keep_descriptors() -> None:
    """Fill those of the three standard ones that are closed, so that no file that is opened later
    gets their numbers, and what is printed with them. They still cannot be used."""
    for number in (INPUT_FD, OUTPUT_FD, ERROR_FD):
        try:
            os.fstat(number)
        except OSError:
            closed.add(number)
            wrong_way = os.O_WRONLY if number == INPUT_FD else os.O_RDONLY
            os.set_inheritable(os.open(os.devnull, wrong_way), True)


def say(text: str, *, quiet: bool = False) -> OSError | None:
    """A line, or several, on standard output; why it is not there, which standard error says
    too unless `quiet`."""
    problem = _put(sys.stdout, f"{text}\n")
    if problem and not quiet and problem.errno not in READER_LEFT:
        tell(f"livedump: {cannot_say(problem)}")
    return problem


def tell(text: str) -> None:
    """A line on standard error."""
    _put(sys.stderr, f"{text}\n")


def cannot_say(problem: OSError) -> str:
    """The sentence about standard output."""
    return f"cannot write to standard output: {os_cause(problem.errno or errno.EIO)}"


def shielded(stream: TextIO | None) -> TextIO:
    """It for a library that prints by itself: a write never fails."""
    return cast(TextIO, _Shielded(stream))


class _Shielded(io.TextIOBase):
    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What the terminal can show."""
        return _encoding(self._stream)

    def fileno(self) -> int:
        """OSError where there is none."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def isatty(self) -> bool:
        """False for one that has gone, too."""
        return is_terminal(self._stream)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Never fails."""
        _put(self._stream, text)
        return len(text)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it."""
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stream.isatty()
    return False


def _encoding(stream: TextIO | None) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _put(stream: TextIO | None, text: str) -> OSError | None:
    """Write all of it now; why not."""
    if stream is None:
        return OSError(errno.EBADF, os_cause(errno.EBADF))
    encoding = _encoding(stream)
    data = text.encode(encoding, "backslashreplace")
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        # In memory, as in tests.
        stream.write(data.decode(encoding))
        return None
    try:
        _write(number, data)
    except OSError as error:
        return error
    return None


def _write(number: int, data: bytes) -> None:
    """All of it, also where another process made the descriptor non-blocking. OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(number, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(number, select.POLLOUT)
            poll.poll()
