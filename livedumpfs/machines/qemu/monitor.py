# SPDX-License-Identifier: GPL-2.0-or-later
"""Monitor: a client of QEMU's machine protocol (QMP), for threads that must not wait for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from qemu.qmp import ConnectError, ExecuteError, Message, QMPClient, QMPError, Runstate

from livedumpfs.closing import Closing
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu.qmp_commands import QmpCommands, run_state
from livedumpfs.thread import needing_threads, start_thread

ANSWER_S: Final = 10.0
"""Default limit for an answer, in seconds."""
STOP_S: Final = 1.0
_CONNECT_S: Final = 10.0
_POLL_S: Final = 0.02
_MARGIN_S: Final = 1.0
_SENT_TURNS: Final = 4
"""Turns of the event loop after which a request has been written."""
_HURRY_S: Final = 0.05
"""vCPUs that do not stand by then wait for something else than a processor."""
_LIVE: Final = frozenset({"running", "suspended"})
"""Run states in which the guest's memory may be written; `cont` brings each of them back."""

# Errors are raised as exceptions. Without a handler the library would print them, too.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

_T = TypeVar("_T")
Event = Callable[[Message], object]


def _drop(event: Message) -> None:
    del event


class Monitor(QmpCommands, Closing):
    """One connection. Any thread may call; QEMU answers in the order of the calls. Each call ends
    within its timeout, in seconds, else MachineError, which names the command. Timeout None:
    ANSWER_S, and STOP_S for `stop`."""

    def __init__(
        self,
        path: str,
        timeout: float | None = None,
        *,
        alive: Callable[[], bool] = lambda: True,
        on_event: Event = _drop,
        listens: bool = False,
    ) -> None:
        """Connect to the server at `path`, which may not be there yet, unless it `listens`.
        `alive`: whether waiting for it makes sense. `on_event`: is called with each event, on the
        connection's thread, and must not wait. MachineError: it does not listen in time, or does
        not greet; EAGAIN: no thread."""
        until = time.monotonic() + (_CONNECT_S if timeout is None else timeout)
        self._sock = _dial(path, until, alive, listens)
        self._holding = threading.Lock()
        self._held = False
        self.stop_asked_ns = 0
        """CLOCK_MONOTONIC, in ns, when the last `stop` was sent: the guest ran until then."""
        self._late: set[asyncio.Task[object]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="livedump-qmp", daemon=True)
        try:
            with needing_threads("speak with QEMU's monitor"):
                start_thread(self._thread)
            left = max(until - time.monotonic(), _POLL_S)
            self._client = self._submit(_greet(self._sock, left, on_event), left)
        except BaseException:
            if self._thread.ident is None:  # never started, so it closes nothing
                self._loop.close()
            else:
                self._end_thread()
            self._sock.close()
            raise

    @property
    def thread(self) -> int:
        """Thread id of the thread that speaks with QEMU."""
        return self._thread.native_id or 0

    @property
    def connected(self) -> bool:
        """QEMU has not closed the connection, nor have we."""
        return self._thread.is_alive() and self._client.runstate == Runstate.RUNNING

    def fileno(self) -> int:
        """The socket. A process with a copy of it can still resume the guest after our end."""
        return self._sock.fileno()

    def execute(
        self,
        command: str,
        arguments: dict[str, object] | None = None,
        *,
        timeout: float | None = None,
    ) -> object:
        """QEMU's answer. MachineError: ETIMEDOUT, ECONNRESET, or EINVAL with QEMU's own words.
        After ETIMEDOUT QEMU may still carry out the command."""
        seconds = _answer_s(timeout)
        return self._submit(self._ask(command, arguments, seconds), seconds)

    def send_file(self, name: str, fd: int, *, timeout: float | None = None) -> None:
        """Give QEMU a copy of `fd` under that name, until a command takes it. MachineError as in
        `execute`."""
        seconds = _answer_s(timeout)
        self._submit(self._send_file(name, fd, seconds), seconds)

    def live(self, *, timeout: float | None = None) -> bool:
        """Whether the guest runs, or is stopped only by our own `stop`. MachineError as in
        `execute`."""
        return self._held or self.status(timeout=timeout) in _LIVE

    def stop(
        self,
        *,
        timeout: float | None = None,
        until: float = math.inf,
        hurry: Callable[[], object] = lambda: None,
        calm: Callable[[], object] = lambda: None,
    ) -> None:
        """Stop the guest; returns when no vCPU runs and no disk request is under way.

        A guest that is stopped already is left as it is. `until`: CLOCK_MONOTONIC in seconds, from
        which on no guest is stopped, because the shim, which would resume it in our place, has done
        so by then. `hurry` is called on the connection's thread once QEMU has been told, unless it
        has answered already, and `calm` when it has, fails, or takes long; `calm` maybe twice.
        MachineError as in `execute`; the guest then runs on, if only when QEMU answers again.
        """
        seconds = STOP_S if timeout is None else timeout
        with self._holding:
            until = min(until, time.monotonic() + seconds)
            self._submit(self._stop(until, seconds, hurry, calm), seconds)

    def cont(self, *, timeout: float | None = None) -> None:
        """Undo `stop`; does nothing if `stop` did nothing. MachineError as in `execute`."""
        seconds = _answer_s(timeout)
        with self._holding:
            self._submit(self._cont(seconds), seconds)

    def close(self) -> None:
        """Resume the guest if we stopped it, and disconnect; harmless when done twice."""
        with self._holding:
            if not self._thread.is_alive():
                return
            with contextlib.suppress(MachineError):
                self._submit(self._cont(STOP_S), STOP_S)
            with contextlib.suppress(MachineError):
                self._submit(self._disconnect(), _MARGIN_S)
            self._end_thread()
            self._sock.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        # Let the cancelled tasks end; else asyncio complains that they are destroyed while pending.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_MARGIN_S)

    def _submit(self, work: Coroutine[Any, Any, _T], timeout: float) -> _T:
        """Run `work`, which keeps its own deadline, on the thread of the connection."""
        if not self._thread.is_alive() or self._loop.is_closed():
            work.close()
            raise MachineError("the connection to QEMU is closed", errno=errno.ENOTCONN)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout + _MARGIN_S)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError) as error:
            raise MachineError("no time for QEMU's monitor", errno=errno.ETIMEDOUT) from error

    async def _ask(
        self, command: str, arguments: dict[str, object] | None, timeout: float
    ) -> object:
        task = self._send(command, arguments)
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            raise MachineError(
                f"QEMU does not answer {command!r} within {timeout:g} s", errno=errno.ETIMEDOUT
            )
        try:
            return task.result()
        except ExecuteError as error:
            raise MachineError(f"QEMU refuses {command!r}: {error}", errno=errno.EINVAL) from error
        except (QMPError, OSError, EOFError) as error:
            raise MachineError(
                f"QEMU has gone before it answered {command!r}", errno=errno.ECONNRESET
            ) from error

    def _send(self, command: str, arguments: dict[str, object] | None) -> asyncio.Task[object]:
        """Send a request. It must not be cancelled: its answer would be taken for another one's."""
        task = asyncio.ensure_future(self._client.execute(command, arguments))
        self._late.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            # Mark the error as seen, else asyncio prints it.
            task.exception()

    async def _send_file(self, name: str, fd: int, timeout: float) -> None:
        try:
            self._client.send_fd_scm(fd)
        except (QMPError, OSError) as error:
            raise MachineError(
                "QEMU has gone before it answered 'getfd'", errno=errno.ECONNRESET
            ) from error
        await self._ask("getfd", {"fdname": name}, timeout)

    async def _status(self, timeout: float) -> str:
        return run_state(await self._ask("query-status", None, timeout))

    async def _stop(
        self,
        until: float,
        timeout: float,
        hurry: Callable[[], object],
        calm: Callable[[], object],
    ) -> None:
        if await self._status(timeout) not in _LIVE:
            return
        if time.monotonic() >= until:
            raise MachineError("no time left to stop the guest", errno=errno.ETIMEDOUT)
        self._held = True
        self.stop_asked_ns = time.monotonic_ns()
        hurrying = asyncio.ensure_future(_hurry(hurry, calm))
        try:
            await self._ask("stop", None, max(until - time.monotonic(), 0))
        except MachineError:
            # QEMU takes commands in order: if it still stops the guest, it resumes it right after.
            self._held = False
            self._send("cont", None)
            # Let the event loop write the request before the connection can be closed.
            await asyncio.sleep(0)
            raise
        finally:
            hurrying.cancel()
            calm()

    async def _cont(self, timeout: float) -> None:
        if not self._held:
            return
        try:
            await self._ask("cont", None, timeout)
        except MachineError as error:
            # If QEMU refused it, it may be sent again; if it was sent, QEMU will carry it out.
            self._held = error.errno == errno.EINVAL
            raise
        self._held = False

    async def _disconnect(self) -> None:
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(_MARGIN_S):
                await self._client.disconnect()


def _answer_s(timeout: float | None) -> float:
    return ANSWER_S if timeout is None else timeout


async def _hurry(hurry: Callable[[], object], calm: Callable[[], object]) -> None:
    for _ in range(_SENT_TURNS):
        await asyncio.sleep(0)
    hurry()
    await asyncio.sleep(_HURRY_S)
    calm()


def _only_told(on_event: Event) -> Callable[[Message], bool]:
    """Keep no event: they are not read, and would pile up."""

    def accept(event: Message) -> bool:
        on_event(event)
        return False

    return accept


def _dial(path: str, until: float, alive: Callable[[], bool], listens: bool) -> socket.socket:
    """A socket connected to the server that listens at `path` before `until`. MachineError."""
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Non-blocking: QEMU serves one client at a time, and connect() could wait behind
            # others.
            sock.setblocking(False)
            sock.connect(path)
            return sock
        except OSError as error:
            sock.close()
            if not alive():
                raise MachineError("QEMU ended at once", errno=errno.ECONNRESET) from error
            if time.monotonic() >= until or (listens and error.errno != errno.EAGAIN):
                raise MachineError(
                    f"QEMU does not listen at {path}: {error.strerror or error}",
                    errno=error.errno or errno.ETIMEDOUT,
                ) from error
        time.sleep(_POLL_S)


async def _greet(sock: socket.socket, timeout: float, on_event: Event) -> QMPClient:
    client = QMPClient("livedump")
    client.events.event_filter = _only_told(on_event)
    try:
        async with asyncio.timeout(timeout):
            await client.connect(sock)
    except TimeoutError as error:
        raise MachineError(
            f"QEMU's monitor does not greet within {timeout:g} s",
            errno=errno.ETIMEDOUT,
            hint="another client may be connected to it",
        ) from error
    except ConnectError as error:
        if isinstance(error.exc, OSError | EOFError):
            raise MachineError("QEMU ended at once", errno=errno.ECONNRESET) from error
        raise MachineError(f"QEMU's monitor: {error}", errno=errno.EPROTO) from error
    return client
