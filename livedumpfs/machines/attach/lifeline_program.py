# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that outlives a killed host for a moment, so that the guest does: it reads the rest of
the stream, and gives QEMU's migration settings back.

A background snapshot that is cancelled, or whose stream cannot be written, leaves the guest of a
QEMU before 8.1 hanging (protection.py). So it is brought to its end, and what comes is dropped.

Run as a program with the standard library alone: `lifeline_program.py STREAM PID SILENCE MONITOR`.
STREAM: number of the open socket of the stream. PID: of QEMU; 0: it is not known. SILENCE: seconds.
MONITOR: how QEMU's monitor is reached, `socket NUMBER` of an open one, or `libvirt URI UUID FOLDER`
through libvirt, whose Python module is in FOLDER.

Standard input is the host's: one line of JSON, then signs (see Told). Its end means that the host
has ended; only then this process speaks with QEMU. A host that says nothing for SILENCE stands
still: then the stream alone is read, since stores of the guest wait for that. Before the first byte
is read standard output says so, and the host takes no dump from what is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from livedumpfs.machines.attach.libvirt_requests import PatientRequests
    from livedumpfs.machines.attach.lifeline_requests import RefusedRequest, Requests
    from livedumpfs.machines.attach.migration_end import (
        NAME,
        UNDER_WAY,
        Former,
        give_back,
        let_run,
    )
    from livedumpfs.machines.attach.protection import is_left_protected, unprotect
else:  # run as a program, which has no package
    sys.path.append(str(Path(__file__).resolve().parent))
    from libvirt_requests import PatientRequests
    from lifeline_requests import RefusedRequest, Requests
    from migration_end import NAME, UNDER_WAY, Former, give_back, let_run
    from protection import is_left_protected, unprotect

ALIVE = b"."
DONE = b"!"
"""The last sign: there is nothing to do."""
BEGUN = b"m"
"""The host sends `migrate`: the migration is its own, and no other program's."""
NOT_BEGUN = b"n"
"""QEMU has refused it."""
RESUMED = b"r"
"""QEMU has let the guest run after the instant."""
PAUSED_AGAIN = b"p"
"""The guest was paused before, QEMU has let it run, and the host has paused it."""
DRAINS = b"d"
"""On standard output: from here on the stream is read, and dropped."""
_SHORT_S = 0.02
_AGAIN_S = 1.0
_LONGEST_S = 900.0
"""After the end of the stream. QEMU serves no other client as long as this process lives."""
_PIECE = 1 << 20


class Told:
    """What the host has said."""

    def __init__(self) -> None:
        self._line = b""
        self.former: Former | None = None
        self.paused = False
        """So was the guest."""
        self.lets_run = False
        """This QEMU lets such a guest run."""
        self.done = self.begun = self.resumed = self.paused_again = False

    def hear(self, part: bytes) -> None:
        """The next bytes."""
        if self.former is None:
            self._line += part
            line, whole, part = self._line.partition(b"\n")
            if not whole:
                return
            found = json.loads(line)
            self.former = Former.from_json(found["former"])
            self.paused, self.lets_run = bool(found["paused"]), bool(found["lets_run"])
        for at in range(len(part)):
            sign = part[at : at + 1]
            self.begun = (self.begun or sign == BEGUN) and sign != NOT_BEGUN
            self.resumed |= sign == RESUMED
            self.paused_again |= sign == PAUSED_AGAIN
            self.done |= sign == DONE


class Drain:
    """Reads the stream to its end, on a thread of its own."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        """Harmless when done twice."""
        if self._thread.ident is None:
            with contextlib.suppress(OSError):
                os.write(1, DRAINS)
            self._thread.start()

    def _run(self) -> None:
        # The socket is the host's, too: it stays as it is, blocking or not.
        buffer, poll = bytearray(_PIECE), select.poll()
        poll.register(self._stream, select.POLLIN)
        with contextlib.suppress(OSError):
            while True:
                poll.poll()
                with contextlib.suppress(BlockingIOError):
                    if not self._stream.recv_into(buffer, _PIECE, socket.MSG_DONTWAIT):
                        return

    def wait(self) -> None:
        """Until its end."""
        self._thread.join()

    @property
    def ended(self) -> bool:
        """All is read."""
        return not self._thread.is_alive()


def watch(told: Told, drain: Drain, silence: float) -> None:
    """Wait for the host's end, or for the sign DONE."""
    while not told.done:
        if not select.select([0], [], [], silence)[0]:  # its number is small
            drain.begin()
            continue
        part = os.read(0, 65536)
        if not part:
            return
        told.hear(part)


class Rescue:
    """QEMU as the host has left it, and the way back."""

    def __init__(
        self, requests: Requests | PatientRequests, drain: Drain, pid: int, told: Told
    ) -> None:
        self._requests = requests
        self._drain = drain
        self._pid = pid
        self._told = told
        self._end: float | None = None
        self._over = False
        """Our own migration has ended: what is write-protected since is another program's."""

    def run(self) -> bool:
        """Try it until QEMU is as it was. False: it has gone, or the time is over."""
        while self._end is None or time.monotonic() < self._end:
            try:
                self._once()
            except ConnectionError:
                self._drain.wait()
                self._free_silent()
                return False
            except OSError:
                if self._drain.ended:
                    self._begin_end()
                    self._free_silent()
            else:
                return True
            time.sleep(_AGAIN_S)
        return False

    def _begin_end(self) -> None:
        self._end = self._end or time.monotonic() + _LONGEST_S

    def _once(self) -> None:
        self._close_stream()
        self._drain.wait()
        self._begin_end()
        self._wait_for_end()
        assert self._told.former
        give_back(self._requests.ask, self._told.former)
        self._unprotect(still=lambda: self._status() not in UNDER_WAY)
        if not self._told.begun:
            return
        if not self._told.paused:
            let_run(self._requests.ask, resumed=self._told.resumed or self._requests.resumed)
        elif self._told.lets_run and not self._told.paused_again:
            self._requests.ask("stop")

    def _close_stream(self) -> None:
        """If the host has not come to `migrate`, QEMU keeps its end open until it is told."""
        try:
            self._requests.ask("closefd", {"fdname": NAME})
        except RefusedRequest:
            # QEMU has it no more: `migrate` has taken it, or an earlier try has closed it.
            self._told.begun &= "closefd" not in (self._requests.late or ())
        except TimeoutError:
            # Where late answers are lost an earlier try may have closed it: in doubt nothing that
            # stands is let run.
            self._told.resumed |= self._requests.late is None
            raise
        else:
            self._told.begun = False

    def _status(self) -> str:
        return str(self._requests.ask("query-migrate").get("status"))

    def _wait_for_end(self) -> None:
        """QEMU takes no settings before. TimeoutError: it is another migration, and a long one."""
        pause = _SHORT_S
        while self._status() in UNDER_WAY:
            if self._end is not None and time.monotonic() > self._end:
                raise TimeoutError
            time.sleep(pause)
            pause = min(2 * pause, _AGAIN_S)
        self._over = True

    def _free_silent(self) -> None:
        """QEMU's thread may itself wait for memory that the snapshot has left protected."""
        if not self._over:
            self._unprotect()

    def _unprotect(self, still: Callable[[], bool] = lambda: True) -> None:
        if self._told.begun and self._pid:
            with contextlib.suppress(PermissionError, ProcessLookupError, FileNotFoundError):
                if is_left_protected(self._pid):
                    unprotect(self._pid, still)


def requests_to(words: list[str]) -> Requests | PatientRequests:
    """By the way that MONITOR names."""
    if words[0] == "socket":
        return Requests(socket.socket(fileno=int(words[1])))
    sys.path.append(words[3])
    return PatientRequests(words[1], words[2])


def main() -> int:
    """0: all was well, or QEMU is as it was."""
    # What ends the host in good order must not end this too.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stream, pid = int(sys.argv[1]), int(sys.argv[2])
    told, drain = Told(), Drain(socket.socket(fileno=stream))
    watch(told, drain, float(sys.argv[3]))
    if told.done or told.former is None:
        return 0
    # Beside: QEMU's monitor may not answer as long as a vCPU waits for the snapshot.
    drain.begin()
    return 0 if Rescue(requests_to(sys.argv[4:]), drain, pid, told).run() else 1


if __name__ == "__main__":
    sys.exit(main())
