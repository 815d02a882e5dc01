# SPDX-License-Identifier: GPL-2.0-or-later
"""The destination of `dump` and `init`: the named target, or standard output, through a pipe into
which the host writes."""

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
from livedumpfs.errors import LivedumpError, TargetError, UsageError, os_cause
from livedumpfs.thread import needing_threads, start_thread

STANDARD_OUTPUT: Final = "-"
_PIECE: Final = 1 << 20


class Outlet:
    """A target with a path."""

    def __init__(self, target: str | None) -> None:
        self.path = target
        """The path for the host; None: the host uses control/output."""
        self.alias: str | None = None
        """The name shown to users instead of the host's path; None: show that path."""

    def handed_over(self) -> None:
        """Called after INIT: the host has opened the path."""

    def finish(self) -> str:
        """Called when the dump is released. Returns why not all data came out; "" when it did."""
        return ""


class StandardOutput(Outlet):
    """Standard output. A thread copies from the pipe to it from the start, because INIT already
    writes."""

    def __init__(self) -> None:
        """UsageError: it is a terminal, or not writable; MachineError EAGAIN: no thread."""
        _expect_writable()
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        super().__init__(f"/proc/{os.getpid()}/fd/{self._write_end}")
        self.alias = _NAME
        self.error = 0
        """errno of the write that standard output refused; 0: none did."""
        # A daemon thread: a reader that stops reading must not keep an interrupted command alive.
        self._copier = threading.Thread(target=self._copy, name="livedump-copy", daemon=True)
        try:
            with needing_threads(f"copy to {_NAME}"):
                start_thread(self._copier)
        except BaseException:
            os.close(self._read_end)
            self.handed_over()
            raise

    def _copy(self) -> None:
        """Copy to the end of the pipe. When the reader has closed its end, close ours: so the host
        gets EPIPE."""
        try:
            while data := os.read(self._read_end, _PIECE):
                view = memoryview(data)
                while view:
                    view = view[os.write(_OUT, view) :]
        except OSError as error:
            self.error = error.errno or errno.EIO
        finally:
            os.close(self._read_end)

    def handed_over(self) -> None:
        """Close our writing end: it would keep the pipe from ending."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    def finish(self) -> str:
        """Wait until the last byte from the host is written."""
        self.handed_over()
        self._copier.join()
        return self.problem

    @property
    def problem(self) -> str:
        """Why standard output takes no more, known before the host gets EPIPE; "": it does."""
        return f"cannot write to {_NAME}: {os_cause(self.error)}" if self.error else ""


_OUT: Final = 1
_NAME: Final = "standard output"


def _expect_writable() -> None:
    """UsageError: standard output cannot take a dump. Checked before anything is opened."""
    if _OUT in closed:
        raise UsageError(f"cannot dump to {_NAME}: it is closed")
    access = fcntl.fcntl(_OUT, fcntl.F_GETFL) & os.O_ACCMODE
    if os.isatty(_OUT):
        raise UsageError("a dump does not go to a terminal", hint="name a file or a pipe")
    if access == os.O_RDONLY:
        raise UsageError(f"cannot dump to {_NAME}: it is not open for writing")


@contextlib.contextmanager
def open_outlet(target: str | None) -> Iterator[Outlet]:
    """The outlet for TARGET. While standard output takes the dump, the command's own text goes to
    standard error."""
    if target != STANDARD_OUTPUT:
        yield Outlet(target)
        return
    out = StandardOutput()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield out
    except LivedumpError as error:
        if error.errno == errno.EPIPE and out.problem:  # the host knows only that its pipe broke
            raise TargetError(out.problem, errno=out.error) from error
        # The path of the pipe in the host's sentence means nothing to users.
        error.message = error.message.replace(out.path or "", _NAME)
        raise
    finally:
        out.handed_over()
