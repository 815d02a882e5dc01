# SPDX-License-Identifier: GPL-2.0-or-later
"""Where `dump` and `init` send a dump: to the target that was named, or to standard output, through
a pipe into which the host writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from typing import Final

from livedumpfs.cli.output import closed
from livedumpfs.errors import LivedumpError, UsageError, os_cause
from livedumpfs.thread import needing_threads, start_thread

STANDARD_OUTPUT: Final = "-"
_PIECE: Final = 1 << 20


class Outlet:
    """The target by its path."""

    def __init__(self, target: str | None) -> None:
        self.path = target
        """What the host is told; None: it knows."""
        self.alias: str | None = None
        """What people are told instead of the path that the host has; None: that."""

    def handed_over(self) -> None:
        """INIT is done: the host has opened it."""

    def finish(self) -> str:
        """The dump is released, or will be: why not all of it came out; "" when it did."""
        return ""


class StandardOutput(Outlet):
    """Standard output. Copies from the first moment on: INIT writes already."""

    def __init__(self) -> None:
        """UsageError: that is a terminal, or takes nothing; MachineError EAGAIN: no thread."""
        _expect_writable()
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        super().__init__(f"/proc/{os.getpid()}/fd/{self._write_end}")
        self.alias = _NAME
        self._problem: OSError | None = None
        # A reader that never takes the rest must not keep an interrupted command alive.
        self._copier = threading.Thread(target=self._copy, name="livedump-copy", daemon=True)
        try:
            with needing_threads(f"copy to {_NAME}"):
                start_thread(self._copier)
        except BaseException:
            os.close(self._read_end)
            self.handed_over()
            raise

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
        return f"cannot write to {_NAME}: {os_cause(self._problem.errno or errno.EIO)}"


_OUT: Final = 1
_NAME: Final = "standard output"


def _expect_writable() -> None:
    """UsageError, before anything is opened."""
    if _OUT in closed:
        raise UsageError(f"cannot dump to {_NAME}: it is closed")
    access = fcntl.fcntl(_OUT, fcntl.F_GETFL) & os.O_ACCMODE
    if os.isatty(_OUT):
        raise UsageError("a dump does not go to a terminal", hint="name a file or a pipe")
    if access == os.O_RDONLY:
        raise UsageError(f"cannot dump to {_NAME}: it is not open for writing")


@contextlib.contextmanager
def open_outlet(target: str | None) -> Iterator[Outlet]:
    """For TARGET of the command line. What the command prints goes to standard error while standard
    output is taken."""
    if target != STANDARD_OUTPUT:
        yield Outlet(target)
        return
    out = StandardOutput()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield out
    except LivedumpError as error:
        # The host knows it by a path that means nothing to people.
        error.message = error.message.replace(out.path or "", _NAME)
        raise
    finally:
        out.handed_over()
