# SPDX-License-Identifier: GPL-2.0-or-later
"""Lifeline: brings a snapshot to its end when this process is killed, or stands still."""

from __future__ import annotations

import contextlib
import errno
import json
import select
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.errors import MachineError, os_cause
from livedumpfs.machines.attach import lifeline_program
from livedumpfs.machines.attach.guest_monitor import LifelineWay
from livedumpfs.machines.attach.migration_end import Former
from livedumpfs.thread import needing_threads, start_thread

_PROGRAM: Final = str(Path(lifeline_program.__file__).resolve())
_SILENCE_S: Final = 5.0
"""A guest waits in each store to a page that was not sent yet. So long it may do so for a host that
stands still (SIGSTOP)."""
_SIGNS: Final = 10
"""Signs of life in that time."""
_END_S: Final = 10.0


class Lifeline(Closing):
    """A process with copies of both sockets, from here to close() or leave(). Any thread may
    call."""

    def __init__(
        self,
        monitor: LifelineWay,
        stream_fd: int,
        pid: int,
        former: Former,
        turn_fd: int,
        *,
        paused: bool,
        lets_run: bool,
    ) -> None:
        """`pid`: of QEMU; 0: not known. `turn_fd`: is kept open (turn.py). `paused`: so was the
        guest. `lets_run`: QEMU lets it run then. MachineError: it cannot be started."""
        numbers = [str(stream_fd), str(pid), str(_SILENCE_S)]
        words = [sys.executable, "-I", "-S", _PROGRAM, *numbers, *monitor.words]
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                pass_fds=[*monitor.fds, stream_fd, turn_fd], start_new_session=True, bufsize=0,
            )  # fmt: skip
        except OSError as error:
            code = error.errno or errno.EIO
            raise MachineError(
                f"cannot start a process that keeps the guest from harm: {os_cause(code)}",
                errno=code,
            ) from error
        self._drained: bool | None = None
        """None: it has said nothing."""
        self._over = threading.Event()
        self._saying = threading.Lock()
        self._thread = threading.Thread(target=self._live, name="livedump-lifeline", daemon=True)
        try:
            first = {"former": asdict(former), "paused": paused, "lets_run": lets_run}
            self.say(json.dumps(first).encode() + b"\n")
            with needing_threads("keep the guest from harm"):
                start_thread(self._thread)
        except BaseException:
            self._dismiss()
            raise

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def say(self, sign: bytes) -> None:
        """One of the signs of lifeline_program.py. Does nothing after the end."""
        assert self._process.stdin
        # It was killed, then there is no lifeline; or it has been left, or closed.
        with self._saying, contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(sign)

    def has_drained(self) -> bool:
        """This process stood still for so long that the lifeline has read from the stream. To be
        asked when all is read here."""
        assert self._process.stdout
        if self._drained is None:
            try:
                poll = select.poll()
                poll.register(self._process.stdout, select.POLLIN)
                if not poll.poll(0):
                    return False
                self._drained = self._process.stdout.read(1) == lifeline_program.DRAINS
            except (OSError, ValueError):  # it has been left meanwhile
                return True
        return self._drained

    def _live(self) -> None:
        while not self._over.wait(_SILENCE_S / _SIGNS):
            self.say(lifeline_program.ALIVE)

    def _end(self) -> None:
        for file in (self._process.stdin, self._process.stdout):
            assert file
            with contextlib.suppress(OSError):
                file.close()

    def _dismiss(self) -> None:
        self.say(lifeline_program.DONE)
        with self._saying:
            self._end()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """All is as it was: end it. Harmless when done twice."""
        if self._is_first():
            self._thread.join(_END_S)
            self._dismiss()

    def leave(self) -> None:
        """This process does no more: the lifeline does the rest, and outlives it."""
        if self._is_first():
            self._thread.join(_END_S)
            with self._saying:
                self._end()

    def _is_first(self) -> bool:
        """Of close() and leave(), of whichever thread."""
        with self._saying:
            first = not self._over.is_set()
            self._over.set()
        return first
