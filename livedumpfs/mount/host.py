# SPDX-License-Identifier: GPL-2.0-or-later
"""One host process: a machine, its dump, its mount, and an orderly end.

The end has deadlines: a target whose I/O hangs must not keep the machine, the mount or the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from livedumpfs.control import Access, Control
from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.errors import HostError
from livedumpfs.hosts import registry
from livedumpfs.machines import Machine, Outliving
from livedumpfs.mount.fs import Adapter, serve
from livedumpfs.mount.mountpoint import (
    check_mountpoint,
    clean_up,
    is_mounted,
    is_stale,
    mount_hint,
    unmount,
)
from livedumpfs.signal_event import SignalEvent
from livedumpfs.thread import needing_threads, start_thread

MOUNT_TIMEOUT = 10.0
"""Seconds until the mount must answer."""
END_TIMEOUT = 10.0
"""Seconds that each step of the end may take."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WAKE = 0.2


class _Interrupted(BaseException):
    """A signal while the host starts."""


class Host:
    """Serves `machine` at `mountpoint` until SIGINT, SIGTERM, SIGHUP, stop(), or it is unmounted;
    a machine in a process of its own goes on then, without a mount, and the host with it.

    allow_other: other users may enter the mount. group: its members may control the host as well;
    without it only root and this process's user can. longest_hold_s: see Access. settings, output:
    what control/ starts with, and INIT takes unless it is told otherwise. UsageError: an output
    that is no path.
    """

    def __init__(
        self,
        machine: Machine,
        mountpoint: str | os.PathLike[str],
        *,
        allow_other: bool = False,
        group: int | None = None,
        longest_hold_s: float | None = None,
        settings: DumpSettings | None = None,
        output: str = "",
    ) -> None:
        self.machine = machine
        self.mountpoint = os.path.abspath(mountpoint)
        self.device = os.path.join(self.mountpoint, "livedump")
        self._allow_other = allow_other or group is not None
        self.dump = LiveDump(machine)
        access = Access(group=group)
        if longest_hold_s is not None:
            access = replace(access, longest_hold_s=longest_hold_s)
        self.control = Control(machine, self.dump, access=access, settings=settings, output=output)
        self._stop = SignalEvent()
        self._ready = threading.Event()
        self._adapter = Adapter(self.control, self._ready.set)
        self._server = threading.Thread(target=self._serve, name="livedump-mount", daemon=True)
        self._unmounted = threading.Event()
        self._mount_error: BaseException | None = None
        self._entry: Path | None = None
        self._interruptible = False
        self._hung_up = False
        self._takes_signals = False

    def stop(self) -> None:
        """Make run() return. Any thread, signal handlers too."""
        self._stop.set()

    def run(
        self,
        on_ready: Callable[[], None] = lambda: None,
        on_lost: Callable[[str], None] = lambda said: None,
    ) -> None:
        """Clean up after dead hosts, mount, start the machine, call `on_ready`, serve, and end.

        `on_lost` gets a sentence when the mount has gone and the machine goes on. The machine is
        closed at the end. HostError: it could not be mounted, or the end was not
        clean: then something still hangs, and the process should leave by os._exit.
        """
        problems: list[str] = []
        with self._signals():
            try:
                self._until_ready(on_ready)
                self._watch(self._unmounted)
                if self._unmounted.is_set() and isinstance(self.machine, Outliving):
                    on_lost(self._detach(self.machine))
                    self._watch(threading.Event())
            finally:
                problems = self._end()
        if problems:
            raise HostError(f"the host did not end cleanly: {'; '.join(problems)}", errno=errno.EIO)

    def _watch(self, lost: threading.Event) -> None:
        """Return when told to stop, when the mount is lost, or when the machine has ended."""
        while not (self._stop.wait(_WAKE) or lost.is_set() or self.machine.ended()):
            pass

    def _detach(self, machine: Outliving) -> str:
        """To take the mount away does not end a machine in a process of its own."""
        problems = self._hang_up()
        problem = _within(END_TIMEOUT, "leave the machine to itself", machine.detach)
        said = (
            f"{self.mountpoint} was unmounted: the machine (pid {machine.pid}) runs on without a "
            "dump, and takes none any more; waiting for its end"
        )
        return "; ".join([said, *problems, *filter(None, [problem])])

    # ------------------------------------------------------------------- begin

    def _until_ready(self, on_ready: Callable[[], None]) -> None:
        """What may take long, and then ends at once on a signal."""
        try:
            self._interruptible = True
            self._begin()
            on_ready()
        except _Interrupted:
            pass
        finally:
            self._interruptible = False

    def _begin(self) -> None:
        clean_up(self.mountpoint)
        check_mountpoint(self.mountpoint)
        with needing_threads(f"mount at {self.mountpoint}"):
            start_thread(self._server)
        waited = 0.0
        while not self._ready.wait(_WAKE):
            waited += _WAKE
            if self._unmounted.is_set() or waited >= MOUNT_TIMEOUT:
                raise self._not_mounted() from self._mount_error
        # Without an entry clients need --device; that is no reason not to run.
        with contextlib.suppress(OSError):
            self._entry = registry.add(self.mountpoint, self.machine.name)
        self.machine.start()

    def _serve(self) -> None:
        try:
            serve(self._adapter, self.mountpoint, allow_other=self._allow_other)
        except BaseException as error:
            self._mount_error = error
        finally:
            self._unmounted.set()

    def _not_mounted(self) -> HostError:
        hint = mount_hint(allow_other=self._allow_other)
        return HostError(f"cannot mount at {self.mountpoint}", errno=errno.EIO, hint=hint)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Our handlers while the host runs; not possible, and not done, outside the main thread.

        They must be there before the mount: libfuse installs its own only where there is none.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            again = self._stop.is_set()
            self._stop.set()
            if self._interruptible and not again:
                raise _Interrupted

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in _SIGNALS}
        self._takes_signals = True
        try:
            # A signal may still come between the last step of the start and its end.
            with contextlib.suppress(_Interrupted):
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --------------------------------------------------------------------- end

    def _end(self) -> list[str]:
        """Free the machine first, then the mount; what went wrong, as sentences."""
        problems = self._hang_up()
        if problem := _within(END_TIMEOUT, "close the machine", self.machine.close):
            problems.append(problem)
        return problems

    def _hang_up(self) -> list[str]:
        """All but the machine; nothing when done before."""
        steps: tuple[tuple[str, Callable[[], object]], ...] = (
            ("release the dump", self.control.close),
            ("end the calls under way", self._stop_calls),
            (f"unmount {self.mountpoint}", self._unmount),
        )
        if self._hung_up:
            return []
        self._hung_up = True
        if self._entry is not None:
            registry.remove(self._entry)
        return [problem for name, step in steps if (problem := _within(END_TIMEOUT, name, step))]

    def _stop_calls(self) -> None:
        if not self._adapter.stop(END_TIMEOUT / 2):
            raise HostError("one hangs", errno=errno.EBUSY)

    def _unmount(self) -> None:
        """Take the mount away, and wait for libfuse's threads: a request that one of them takes
        while Python ends, from a file that is still open, would kill the process."""
        if not self._ready.is_set():
            return
        if not self._unmounted.is_set():
            self._wake_server()
            self._unmounted.wait(END_TIMEOUT / 4)
        # A connection that was aborted has ended, and its mount is still there.
        if not self._unmounted.is_set() or (
            is_mounted(self.mountpoint) and is_stale(self.mountpoint)
        ):
            unmount(self.mountpoint)
        if not self._unmounted.wait(_WAKE):
            raise HostError("a file of it is open, and libfuse still serves it", errno=errno.EBUSY)

    def _wake_server(self) -> None:
        """Make libfuse see that it is to leave."""
        mounted = is_mounted(self.mountpoint)
        self._adapter.leave(mounted=mounted)
        if mounted:
            with contextlib.suppress(OSError):
                os.statvfs(self.mountpoint)  # a request; its answer does not matter
        elif self._takes_signals and self._server.ident is not None:
            # Another process has taken the mount away, and a file of it is still open. The handler
            # is ours, and SIGHUP says no more than what is being done.
            with contextlib.suppress(ProcessLookupError):
                signal.pthread_kill(self._server.ident, signal.SIGHUP)


def _within(seconds: float, name: str, step: Callable[[], object]) -> str:
    """Run a step of the end on a thread of its own; "" or what went wrong."""
    problem: list[str] = []

    def run() -> None:
        try:
            step()
        except Exception as error:
            problem.append(f"cannot {name}: {error}")

    thread = threading.Thread(target=run, name=f"livedump-end-{name.split()[0]}", daemon=True)
    try:
        start_thread(thread)
    except RuntimeError:
        run()  # without its time limit; the machine is to be freed all the same
        return "".join(problem)
    thread.join(seconds)
    if thread.is_alive():
        return f"cannot {name} within {seconds:g} s"
    return "".join(problem)
