# SPDX-License-Identifier: GPL-2.0-or-later
"""The destination of `dump` and `init`: the named target, or standard output, through a pipe into
which the host writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, Final

from livedumpfs.cli.output import closed
from livedumpfs.errors import LivedumpError, TargetError, UsageError, os_cause
from livedumpfs.pipe_thread import PipeThread

STANDARD_OUTPUT: Final = "-"
_PIECE: Final = 1 << 20


class Outlet:
    """A target with a path."""

    def __init__(self, target: str | None) -> None:
        self.path = target
        """The path for the host; None: the host uses control/output."""
        self.alias: str | None = None
        """The name shown to users instead of the host's path; None: show that path."""
        self.since = b""
        """Dump id of the base, what did not change since is left out; b"": none."""
        self.all_read = ""
        """Why it has no base though the machine tracks; "": it has, or does not."""
        self.broken_off = False
        """The dump has ended before its time; finish() need not wait for long."""
        self.told = ""
        """The problem that was printed already."""

    @property
    def problem(self) -> str:
        """Why it takes no more, where the host knows only that its pipe broke; "": it does."""
        return ""

    def handed_over(self) -> None:
        """Called after INIT: the host has opened the path."""

    def finish(self) -> str:
        """Called when the dump is released. Returns why not all data came out; "" when it did."""
        return ""


class PipedOutlet(Outlet):
    """A pipe, from which a thread takes what the host writes."""

    def __init__(self, alias: str, task: str, thread_name: str) -> None:
        """See PipeThread."""
        self._pipe = PipeThread(self._take, task, thread_name)
        super().__init__(self._pipe.path)
        self.alias = alias

    def _take(self, pipe: int) -> None:
        """Take all that comes, on the thread; keeps its errors for `problem`."""
        raise NotImplementedError

    def handed_over(self) -> None:
        """Close our writing end: it would keep the pipe from ending."""
        self._pipe.let_go()


class StandardOutput(PipedOutlet):
    """Standard output."""

    def __init__(self, recipients: Sequence[str] = ()) -> None:
        """`recipients`: that age encrypts it for; none: it does not. UsageError: it is a
        terminal, or not writable, or there are no such recipients; MachineError EAGAIN: no
        thread."""
        expect_writable()
        self._seal = _sealing(recipients) if recipients else None
        self.error = 0
        """errno of the write that standard output refused; 0: none did."""
        super().__init__(NAME, f"copy to {NAME}", "livedump-copy")

    def _take(self, pipe: int) -> None:
        """Copy to the end of the pipe."""
        try:
            if self._seal:
                with open(pipe, "rb", closefd=False) as source:
                    self._seal(source)
            while data := os.read(pipe, _PIECE):
                write_all(data)
        except OSError as error:
            self.error = error.errno or errno.EIO

    def finish(self) -> str:
        """Wait until the last byte from the host is written."""
        self.handed_over()
        self._pipe.join()
        return self.problem

    @property
    def problem(self) -> str:
        """Why standard output takes no more, known before the host gets EPIPE; "": it does."""
        return f"cannot write to {NAME}: {os_cause(self.error)}" if self.error else ""


_OUT: Final = 1
NAME: Final = "standard output"


def write_all(data: bytes | memoryview) -> None:
    """To standard output. OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(_OUT, view) :]


class _Sink(io.RawIOBase):
    """Standard output, which remembers why it took no more: age's library keeps only the text."""

    error: OSError | None = None

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """All of it. OSError."""
        try:
            write_all(data)
        except OSError as error:
            self.error = error
            raise
        return len(data)


def _sealing(recipients: Sequence[str]) -> Callable[[BinaryIO], None]:
    """What writes a stream to standard output as an age file. UsageError: no such recipients."""
    import pyrage

    from livedumpfs.stores.store_key import parse_recipients

    keys = parse_recipients(recipients)

    def seal(source: BinaryIO) -> None:
        sink = _Sink()
        try:
            pyrage.encrypt_io(source, sink, keys)
        except pyrage.EncryptError as error:
            raise sink.error or OSError(errno.EIO, str(error)) from error

    return seal


def expect_writable() -> None:
    """UsageError: standard output cannot take a dump. Checked before anything is opened."""
    if _OUT in closed:
        raise UsageError(f"cannot dump to {NAME}: it is closed")
    access = fcntl.fcntl(_OUT, fcntl.F_GETFL) & os.O_ACCMODE
    if os.isatty(_OUT):
        raise UsageError("a dump does not go to a terminal", hint="name a file or a pipe")
    if access == os.O_RDONLY:
        raise UsageError(f"cannot dump to {NAME}: it is not open for writing")


@contextlib.contextmanager
def open_outlet(target: str | None, recipients: Sequence[str] = ()) -> Iterator[Outlet]:
    """The outlet for TARGET; `recipients`: that standard output is encrypted for. While standard
    output takes the dump, the command's own text goes to standard error."""
    if target != STANDARD_OUTPUT:
        yield Outlet(target)
        return
    out = StandardOutput(recipients)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield out
    except LivedumpError as error:
        if error.errno == errno.EPIPE and out.problem:  # the host knows only that its pipe broke
            raise TargetError(out.problem, errno=out.error) from error
        # The path of the pipe in the host's sentence means nothing to users.
        error.message = error.message.replace(out.path or "", NAME)
        raise
    finally:
        out.handed_over()
