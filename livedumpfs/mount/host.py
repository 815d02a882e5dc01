# SPDX-License-Identifier: GPL-2.0-or-later
"""One host process: a machine, its dump, its mount, and an orderly end.

The end has deadlines: a target whose I/O hangs must not keep the machine, the mount or the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from livedumpfs.control import Access, Control
from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.errors import HostError, os_cause
from livedumpfs.hosts import registry
from livedumpfs.hosts.mounted import OURS, mounts_at
from livedumpfs.machines import Machine, Outliving
from livedumpfs.mount.fs import Adapter, serve

MOUNT_TIMEOUT = 10.0
"""Seconds until the mount must answer."""
END_TIMEOUT = 10.0
"""Seconds that each step of the end may take."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WAKE = 0.2
_ALREADY_GONE = (errno.ENOTCONN, errno.ECONNABORTED)
_CAP_SYS_ADMIN = 1 << 21


class _Interrupted(BaseException):
    """A signal while the host starts."""


class Host:
    """Serves `machine` at `mountpoint` until SIGINT, SIGTERM, SIGHUP, stop(), or somebody unmounts;
    a machine in a process of its own goes on then, without a mount, and the host with it.

    allow_other: other users may enter the mount. group: its members may control the host as well;
    without it only root and this process's user can. settings, output: what control/ starts with,
    and INIT takes unless it is told otherwise. UsageError: an output that is no path.
    """

    def __init__(
        self,
        machine: Machine,
        mountpoint: str | os.PathLike[str],
        *,
        allow_other: bool = False,
        group: int | None = None,
        settings: DumpSettings | None = None,
        output: str = "",
    ) -> None:
        self.machine = machine
        self.mountpoint = os.path.abspath(mountpoint)
        self.device = os.path.join(self.mountpoint, "livedump")
        self._allow_other = allow_other or group is not None
        self.dump = LiveDump(machine)
        self.control = Control(
            machine, self.dump, access=Access(group=group), settings=settings, output=output
        )
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._adapter = Adapter(self.control, self._ready.set)
        self._unmounted = threading.Event()
        self._mount_error: BaseException | None = None
        self._entry: Path | None = None
        self._interruptible = False
        self._hung_up = False

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
        """The machine is not ours to end because somebody took the mount away."""
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
        threading.Thread(target=self._serve, name="livedump-mount", daemon=True).start()
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
        """Take the mount away. libfuse's threads see that once nobody has a file of it open; until
        then they answer nothing, and end with the process."""
        if not self._ready.is_set():
            return
        # A connection that was aborted has ended, and its mount is still there.
        if not self._unmounted.is_set() or (
            is_mounted(self.mountpoint) and is_stale(self.mountpoint)
        ):
            unmount(self.mountpoint)
        self._unmounted.wait(_WAKE)


def _within(seconds: float, name: str, step: Callable[[], object]) -> str:
    """Run a step of the end on a thread of its own; "" or what went wrong."""
    problem: list[str] = []

    def run() -> None:
        try:
            step()
        except Exception as error:
            problem.append(f"cannot {name}: {error}")

    thread = threading.Thread(target=run, name=f"livedump-end-{name.split()[0]}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return f"cannot {name} within {seconds:g} s"
    return "".join(problem)


# ------------------------------------------------------------------------- mounts


def clean_up(mountpoint: str) -> None:
    """Unmount what dead hosts left, at `mountpoint` and where the registry says; remove their
    entries. HostError EBUSY: a living host serves `mountpoint`."""
    for path, entry in registry.entries():
        if entry.alive:
            if entry.mountpoint == mountpoint and is_mounted(mountpoint):
                raise HostError(
                    f"{mountpoint} is the mount of another host (pid {entry.pid})",
                    errno=errno.EBUSY,
                )
            continue
        if is_mounted(entry.mountpoint) and is_stale(entry.mountpoint):
            with contextlib.suppress(HostError):
                unmount(entry.mountpoint)
        registry.remove(path)
    if is_mounted(mountpoint) and is_stale(mountpoint):
        unmount(mountpoint)


def check_mountpoint(mountpoint: str) -> None:
    """HostError: no directory (ENOENT, ENOTDIR), not empty (ENOTEMPTY), or mounted (EBUSY)."""
    if is_mounted(mountpoint):
        raise HostError(f"cannot mount at {mountpoint}: it is mounted already", errno=errno.EBUSY)
    try:
        mode = os.stat(mountpoint).st_mode
        code = 0 if stat.S_ISDIR(mode) else errno.ENOTDIR
        if not code and os.listdir(mountpoint):
            code = errno.ENOTEMPTY
    except OSError as error:
        code = error.errno or errno.EIO
    if code:
        raise HostError(f"cannot mount at {mountpoint}: {os_cause(code)}", errno=code)


def mount_hint(*, allow_other: bool = False) -> str:
    """Why a mount may have failed: which right this process has not."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse: load the module fuse, or give the container that device"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no right to read and write /dev/fuse"
    if int(status["CapEff"], 16) & _CAP_SYS_ADMIN:
        return "libfuse says why above"
    if os.geteuid() == 0:
        return "root without CAP_SYS_ADMIN, as in a container: it needs that, or unshare -Urm"
    if _fusermount() is None:
        return "fusermount is not installed: a user needs the package fuse or fuse3"
    if status.get("NoNewPrivs", "").strip() == "1":
        return "fusermount gets no rights from a process with no_new_privs"
    if allow_other:
        return "other users need user_allow_other in /etc/fuse.conf"
    return "libfuse says why above"


def _fusermount() -> str | None:
    return shutil.which("fusermount") or shutil.which("fusermount3")


def is_mounted(mountpoint: str) -> bool:
    """Whether one of our file systems is mounted there, and nothing of others' over it. Asks the
    kernel, never the mount itself."""
    return mounts_at(mountpoint)[-1:] == [OURS]


def is_stale(mountpoint: str) -> bool:
    """Whether nobody serves the mount any more. A host that lives and hangs counts as alive."""
    found: list[int] = []

    def look() -> None:
        try:
            # Not stat: the kernel may still hold the attributes of a host that has just died.
            os.statvfs(mountpoint)
        except OSError as error:
            found.append(error.errno or 0)

    thread = threading.Thread(target=look, name="livedump-look", daemon=True)
    thread.start()
    thread.join(2.0)
    return bool(found) and found[0] in _ALREADY_GONE


def unmount(mountpoint: str) -> None:
    """`fusermount -u`, lazily when a process has a file of it open. HostError: it stays, or what
    is mounted over it is not ours."""
    program = _fusermount()
    commands = [[program, "-u"], [program, "-u", "-z"]] if program else []
    commands += [["umount", "-l"]] if os.geteuid() == 0 else []
    said = "fusermount is not installed"
    kinds = mounts_at(mountpoint)
    if OURS in kinds and kinds[-1] != OURS:
        raise HostError(
            f"cannot unmount {mountpoint}: {kinds[-1]} is mounted over it", errno=errno.EBUSY
        )
    if OURS not in kinds:
        return
    for command in commands:
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                [*command, "--", mountpoint] if command[0] != "umount" else [*command, mountpoint],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=END_TIMEOUT / 4, check=False, cwd="/",
            )  # fmt: skip
            said = done.stderr.strip() or said
        if not is_mounted(mountpoint):
            return
    raise HostError(f"cannot unmount {mountpoint}: {said}", errno=errno.EBUSY)
