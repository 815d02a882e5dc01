# SPDX-License-Identifier: GPL-2.0-or-later
"""LibvirtMonitor: the monitor of a domain of libvirt, which is libvirt's, through libvirt."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from typing import Any, Final

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach.guest_monitor import GuestMonitor, LifelineWay, OnEvent
from livedumpfs.machines.attach.libvirt_requests import LibvirtRequests, library, run_events
from livedumpfs.machines.qemu.monitor import ANSWER_S
from livedumpfs.thread import needing_threads

_QEMU: Final = "QEMU"
_TAINTS: Final = "; libvirt marks the domain as tainted (custom-monitor), until it ends"
_KEEPALIVE: Final = (5, 6)
"""A libvirtd that is silent for so many seconds, so many times, has gone."""


class LibvirtMonitor(GuestMonitor):
    """One connection to libvirt."""

    taints = _TAINTS

    def __init__(self, name: str, on_event: OnEvent) -> None:
        """`name`: a domain's name, UUID or number, of the libvirtd that LIBVIRT_DEFAULT_URI names,
        or of libvirt's usual one. MachineError."""
        self._libvirt, self._qemu = library()
        self._on_event = on_event
        self._gone = threading.Event()
        self._closed = False
        with needing_threads("hear libvirt's events"):
            run_events(self._libvirt)
        with contextlib.ExitStack() as undo:
            with self._explained(f"cannot reach the domain {name}"):
                self._connection = self._libvirt.open(None)
                undo.callback(self._disconnect)
                self._domain = self._find(name)
                self._expect_qemu_here(name)
                self._listen()
            self._requests = LibvirtRequests(self._domain)
            self.uri, self.uuid = self._connection.getURI(), self._domain.UUIDString()
            self.place = f"domain {self._domain.name()} of {self.uri}"
            self.whose = f"libvirt {self.uuid}"
            self.pid = _process_of(self.uuid)
            self.execute("query-version")
            self._undo = undo.pop_all()

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._libvirt.libvirtError as error:
            missing = error.get_error_code() == self._libvirt.VIR_ERR_NO_DOMAIN
            raise MachineError(
                f"{what}: {error.get_error_message()}",
                errno=errno.ENOENT if missing else errno.EIO,
                hint="`virsh list` shows those that run; LIBVIRT_DEFAULT_URI names the libvirtd",
            ) from error

    def _find(self, name: str) -> Any:
        lookups = [self._connection.lookupByUUIDString, self._connection.lookupByName]
        if name.isdecimal():
            lookups.insert(0, lambda number: self._connection.lookupByID(int(number)))
        for one in lookups[:-1]:
            with contextlib.suppress(self._libvirt.libvirtError):
                return one(name)
        return lookups[-1](name)

    def _expect_qemu_here(self, name: str) -> None:
        if self._connection.getType() != _QEMU:
            raise MachineError(
                f"{self._connection.getURI()} has no guests of QEMU", errno=errno.ENOTSUP
            )
        if not self._domain.isActive():
            raise MachineError(
                f"the domain {name} does not run", errno=errno.EINVAL, hint="virsh start"
            )

    def _listen(self) -> None:
        lib = self._libvirt
        self._connection.setKeepAlive(*_KEEPALIVE)
        self._connection.registerCloseCallback(lambda *_: self._gone.set(), None)
        ended = (lib.VIR_DOMAIN_EVENT_STOPPED, lib.VIR_DOMAIN_EVENT_CRASHED)

        def changed(_: Any, domain: Any, event: int, *more: Any) -> None:
            del domain, more
            if event in ended:
                self._gone.set()

        self._lifecycle = self._connection.domainEventRegisterAny(
            self._domain, lib.VIR_DOMAIN_EVENT_ID_LIFECYCLE, changed, None
        )
        self._events = self._qemu.qemuMonitorEventRegister(
            self._connection, self._domain, None, self._heard, None, 0
        )

    def _heard(
        self, _: Any, domain: Any, event: str, seconds: int, micros: int, *rest: Any
    ) -> None:
        del domain, rest
        at = {"seconds": seconds, "microseconds": micros}
        self._on_event({"event": event, "timestamp": at})

    @property
    def connected(self) -> bool:
        """See GuestMonitor."""
        return not self._gone.is_set()

    def execute(
        self,
        command: str,
        arguments: dict[str, object] | None = None,
        *,
        timeout: float | None = None,
    ) -> object:
        """See QmpCommands."""
        return self._ask(command, arguments, [], timeout)

    def send_file(self, name: str, fd: int, *, timeout: float | None = None) -> None:
        """See GuestMonitor."""
        self._ask("getfd", {"fdname": name}, [fd], timeout)

    def _ask(
        self,
        command: str,
        arguments: dict[str, object] | None,
        files: list[int],
        timeout: float | None,
    ) -> object:
        seconds = ANSWER_S if timeout is None else timeout
        try:
            answer = self._requests.ask(command, arguments, files=files, timeout=seconds)
        except OSError as error:
            raise MachineError(_said(command, seconds, error), errno=error.errno or 0) from error
        if "error" in answer:
            words = answer["error"].get("desc", "")
            raise MachineError(f"QEMU refuses {command!r}: {words}", errno=errno.EINVAL)
        return answer.get("return")

    def for_lifeline(self) -> LifelineWay:
        """A connection of its own, when it needs one."""
        folder = os.path.dirname(os.path.abspath(self._libvirt.__file__))
        return LifelineWay(["libvirt", self.uri, self.uuid, folder])

    def _disconnect(self) -> None:
        with contextlib.suppress(self._libvirt.libvirtError):
            self._connection.close()

    def close(self) -> None:
        """Disconnect. Harmless when done twice."""
        if self._closed:  # libvirt raises for a closed connection
            return
        self._closed = True
        with contextlib.suppress(self._libvirt.libvirtError):
            self._qemu.qemuMonitorEventDeregister(self._connection, self._events)
            self._connection.domainEventDeregisterAny(self._lifecycle)
            self._connection.unregisterCloseCallback()
        self._undo.close()


def _said(command: str, seconds: float, error: OSError) -> str:
    if error.errno == errno.ETIMEDOUT:
        return f"QEMU does not answer {command!r} within {seconds:g} s"
    if error.errno == errno.ECONNRESET:
        return f"QEMU or libvirt has gone before it answered {command!r}: {error.strerror}"
    return f"libvirt cannot send {command!r} to QEMU: {error.strerror}"


def _process_of(uuid: str) -> int:
    """Number of the QEMU that libvirt has started with that UUID; 0: it cannot be seen, or there
    are several."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            if b"-uuid" in words[:-1] and words[words.index(b"-uuid") + 1] == uuid.encode():
                found.append(int(name))
    return found[0] if len(found) == 1 else 0
