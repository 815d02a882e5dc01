# SPDX-License-Identifier: GPL-2.0-or-later
"""QemuProcess: the QEMU process with our shim, and the wrapper program that starts it, if any."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.errors import MachineError
from livedumpfs.machines.qemu.asking import Ram
from livedumpfs.machines.qemu.command_line import QemuCommand, qemu_file
from livedumpfs.machines.qemu.config_file import monitor_config
from livedumpfs.machines.qemu.ends import EndedAtOnce, cannot_start, ended_at_once, limit_hint
from livedumpfs.machines.qemu.family import kill_family

_POLL_S: Final = 0.02
_CHILD_S: Final = 2.0
_SOCKET_MOST: Final = 107
"""Most bytes of a socket's path (unix(7))."""
_CREDENTIALS: Final = struct.Struct("3i")
_SOCKET: Final = "LIVEDUMP_SHIM_SOCKET"
_WORD: Final = "LIVEDUMP_SHIM_WORD"
_PROGRAM: Final = "LIVEDUMP_SHIM_PROGRAM"
_MONITOR: Final = "LIVEDUMP_SHIM_MONITOR"
"""Names of environment variables; see native/shim/shim.h."""
_NOT_LOADED: Final = (
    "it is statically linked, set-user-ID, no QEMU or not called qemu-system-*, or what starts it "
    "drops LD_PRELOAD from its environment or changes its arguments or user"
)


def shim_path() -> Path:
    """The shared object that is preloaded into QEMU. MachineError: it was not built."""
    folder = Path(__file__).resolve().parents[2]
    found = sorted(folder.glob("_shim*.so"))
    if not found:
        raise MachineError(
            f"there is no shim in {folder}", errno=errno.ENOENT, hint="build it with `make`"
        )
    return found[0]


class QemuProcess(Closing):
    """A child process, or a descendant of one: a wrapper script may have started QEMU."""

    def __init__(
        self, command: QemuCommand, ram: Ram | None, folder: str, shim: Path, timeout: float
    ) -> None:
        """Start QEMU, with sockets in `folder`, and wait until its shim has connected. `ram`: the
        memory that we make for it. MachineError: QEMU does not start, ends, or has no shim."""
        where = os.path.join(folder, "shim")
        expect_short(where)
        self.qmp = os.path.join(folder, "qmp")
        self._config = os.path.join(folder, "monitor.cfg")
        Path(self._config).write_text(monitor_config(self.qmp))
        self._command, self._ram = command, ram
        self._pidfd = -1
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(where)
            listener.listen(1)
            listener.settimeout(_POLL_S)
            self._child = self._spawn(where, shim)
            try:
                self.connection = self._wait_for_shim(listener, time.monotonic() + timeout)
                self.pid = self._peer()
            except BaseException:
                # No guest has run yet, and there is no shim that could end QEMU.
                kill_family(self._child)
                raise

    def _spawn(self, where: str, shim: Path) -> subprocess.Popen[bytes]:
        words = self._command.prepared(self._config, self._ram)
        preload = [str(shim), os.environ.get("LD_PRELOAD", "")]
        environment = {
            **os.environ,
            "LD_PRELOAD": ":".join(filter(None, preload)),
            _SOCKET: where,
            _WORD: words[-1],
            _PROGRAM: qemu_file(self._command.qemu),
            _MONITOR: self.qmp,
        }
        if self._command.stopped:  # the user asked for -S: the shim must not resume the guest
            del environment[_MONITOR]
        try:
            return subprocess.Popen(
                words,
                env=environment,
                close_fds=False,  # inherited descriptors are for QEMU (libvirt's, fd=N)
                start_new_session=_leads_session(),
            )
        except OSError as error:
            raise cannot_start(self._command.program, error) from error

    def _wait_for_shim(self, listener: socket.socket, until: float) -> socket.socket:
        while True:
            # Read both before accept(): the shim connects before QEMU does anything else.
            ended, listens = self._child.poll() is not None, os.path.exists(self.qmp)
            with contextlib.suppress(TimeoutError):
                return listener.accept()[0]
            if ended:
                raise self._not_loaded()
            if listens or time.monotonic() >= until:
                raise MachineError(
                    "QEMU did not load our shim", errno=errno.ENOTCONN, hint=_NOT_LOADED
                )

    def _peer(self) -> int:
        """Process id of the process that connected. MachineError."""
        level, name = socket.SOL_SOCKET, socket.SO_PEERCRED
        try:
            found = self.connection.getsockopt(level, name, _CREDENTIALS.size)
            pid = int(_CREDENTIALS.unpack(found)[0])
            self._pidfd = os.pidfd_open(pid)
        except (OSError, OverflowError) as error:
            self.connection.close()
            raise self.ended_at_once() from error  # and its entry in the process table is gone
        return pid

    def _not_loaded(self) -> MachineError:
        found = self.ended_at_once()
        return MachineError(
            f"{found.message}, without our shim",
            errno=errno.ECONNRESET,
            hint=limit_hint(found.status, 0) or _NOT_LOADED,
        )

    def ended_at_once(self) -> EndedAtOnce:
        """The error for a QEMU that has ended before its guest ran."""
        try:
            code = self._child.wait(_CHILD_S)
        except subprocess.TimeoutExpired:  # the wrapper goes on
            code = 0
        return ended_at_once(code, ram=self._ram.size if self._ram else 0)

    def ended(self, within: float = 0.0) -> bool:
        """Whether QEMU has ended; waits `within` seconds for that."""
        if self._pidfd < 0:
            return True
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        return bool(waiting.poll(int(within * 1000)))

    def end(self, within: float, *, kill: bool) -> None:
        """Send SIGTERM, and wait `within` seconds for its disks. MachineError: it has not ended;
        `kill`: it is killed instead, because its guest has not run."""
        self._signal(signal.SIGTERM)
        if not self.ended(within):
            if not kill:
                raise MachineError(
                    f"QEMU (pid {self.pid}) has not ended yet",
                    errno=errno.EBUSY,
                    hint="it got SIGTERM",
                )
            self._signal(signal.SIGKILL)
        self.status()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)

    def status(self) -> int:
        """Exit status of the child after QEMU's end; for a signal, 128 and its number. 0 when the
        child goes on without QEMU."""
        try:
            code = self._child.wait(_CHILD_S)
        except subprocess.TimeoutExpired:
            return 0
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        """Close the descriptors; may be called twice."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def expect_short(path: str) -> None:
    """MachineError ENAMETOOLONG: the path is too long for a socket."""
    if len(os.fsencode(path)) > _SOCKET_MOST:
        raise MachineError(
            f"cannot make a socket at {path}: its path is longer than {_SOCKET_MOST} bytes",
            errno=errno.ENAMETOOLONG,
            hint="set TMPDIR to a shorter one",
        )


def _leads_session() -> bool:
    """Whether this process leads its session, so that no shell stops and continues it by Ctrl-Z.
    QEMU then gets a session of its own: at this process's end, the kernel sends SIGHUP to its
    session. Else QEMU stays in the process group that has the terminal, as without livedump."""
    return os.getsid(0) == os.getpid()
