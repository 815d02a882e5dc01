# SPDX-License-Identifier: GPL-2.0-or-later
"""Where `dump` and `init` send a dump: to the target that was named, or to standard output, through
a pipe into which the host writes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator
from typing import Final

from livedumpfs.errors import LivedumpError, UsageError, os_cause

STANDARD_OUTPUT: Final = "-"
_PIECE: Final = 1 << 20


class Outlet:
    """The target by its path."""

    def __init__(self, target: str) -> None:
        self.path = target
        """What the host is told."""
        self.name = target
        """What people are told."""

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """An error in here calls the target as people do."""
        try:
            yield
        except LivedumpError as error:
            error.message = self.in_words(error.message)
            raise

    def in_words(self, sentence: str) -> str:
        """What the host says of the target, as people call it."""
        return sentence.replace(self.path or "\0", self.name)

    def handed_over(self) -> None:
        """INIT is done: the host has opened it."""

    def finish(self) -> str:
        """The dump is released, or will be: why not all of it came out; "" when it did."""
        return ""


class StandardOutput(Outlet):
    """Standard output. Copies from the first moment on: INIT writes already."""

    def __init__(self) -> None:
        """UsageError: that is a terminal."""
        if os.isatty(_OUT):
            raise UsageError("a dump does not go to a terminal", hint="name a file or a pipe")
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        super().__init__(f"/proc/{os.getpid()}/fd/{self._write_end}")
        self.name = "standard output"
        self._problem: OSError | None = None
        # A reader that never takes the rest must not keep an interrupted command alive.
        self._copier = threading.Thread(target=self._copy, name="livedump-copy", daemon=True)
        self._copier.start()

    def _copy(self) -> None:
        """To the end of the pipe. When nobody takes it any more the host is to see that too."""
        try:
            while data := os.read(self._read_end, _PIECE):
                view = memoryview(data)
                while view:
                    view = view[os.write(_OUT, view) :]
        except OSError as error:
            self._problem = error
        finally:
            os.close(self._read_end)

    def handed_over(self) -> None:
        """Ours would keep the pipe from ending."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def finish(self) -> str:
        """Wait until the last byte that the host wrote is out."""
        self.handed_over()
        self._copier.join()
        if self._problem is None:
            return ""
        return f"cannot write to standard output: {os_cause(self._problem.errno or errno.EIO)}"


_OUT: Final = 1


@contextlib.contextmanager
def open_outlet(target: str | None) -> Iterator[Outlet]:
    """For TARGET of the command line. What the command prints goes to standard error while standard
    output is taken."""
    if target != STANDARD_OUTPUT:
        yield Outlet(target or "")
        return
    out = StandardOutput()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield out
    finally:
        out.handed_over()
