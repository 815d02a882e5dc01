# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests to QEMU through libvirt, whose own monitor it is. Standard library and libvirt-python
alone: for lifeline_program.py, too."""

from __future__ import annotations

import contextlib
import errno
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from livedumpfs.machines.attach.lifeline_requests import RefusedRequest
else:  # a part of a program, which has no package
    from lifeline_requests import RefusedRequest

_PATIENCE_S = 10.0
"""For one answer."""


def library() -> Any:
    """The Python module libvirt, which prints no errors by itself. ImportError."""
    import libvirt
    import libvirt_qemu

    libvirt.registerErrorHandler(lambda *_: None, None)
    return libvirt, libvirt_qemu


class LibvirtRequests:
    """To the QEMU of one domain."""

    def __init__(self, domain: Any) -> None:
        self._libvirt, self._qemu = library()
        self._domain = domain

    def ask(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        files: Sequence[int] = (),
        timeout: float | None = None,
    ) -> Any:
        """QEMU's whole answer. `files`: numbers of open files that go with the command. OSError:
        ETIMEDOUT, QEMU or libvirt does not answer within `timeout` s (None: 10 s), and may
        still carry it out;
        ECONNRESET, one of them has gone; EIO, in libvirt's words."""
        request: dict[str, object] = {"execute": command}
        if arguments is not None:
            request["arguments"] = arguments
        text = json.dumps(request)
        seconds = _PATIENCE_S if timeout is None else timeout
        return json.loads(_in_time(lambda: self._send(text, files), seconds))

    def _send(self, text: str, files: Sequence[int]) -> str:
        try:
            if not files:
                return str(self._qemu.qemuMonitorCommand(self._domain, text, 0))
            if not hasattr(self._qemu, "qemuMonitorCommandWithFiles"):
                raise OSError(errno.ENOTSUP, "this libvirt cannot pass open files, 8.2 can")
            return str(
                self._qemu.qemuMonitorCommandWithFiles(self._domain, text, list(files), 0)[0]
            )
        except self._libvirt.libvirtError as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> OSError:
        lib, code, words = self._libvirt, error.get_error_code(), error.get_error_message()
        if code in (lib.VIR_ERR_OPERATION_TIMEOUT, lib.VIR_ERR_AGENT_UNRESPONSIVE):
            return TimeoutError(errno.ETIMEDOUT, words)
        with contextlib.suppress(lib.libvirtError):
            if self._domain.connect().isAlive() and self._domain.isActive():
                return OSError(errno.EIO, words)
        return ConnectionResetError(errno.ECONNRESET, words)


class PatientRequests:
    """Of a process that connects at its first request, and again when libvirtd has begun anew."""

    def __init__(self, uri: str, uuid: str) -> None:
        self._uri, self._uuid = uri, uuid
        self._connected: LibvirtRequests | None = None
        self.late = None
        """As of Requests, but answers that come late are lost here."""
        self.resumed = False
        """QEMU has let the guest run since the first request."""

    def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """What QEMU returns. RefusedRequest; TimeoutError; ConnectionError: the domain has ended;
        another OSError: there is no libvirtd now, try it again."""
        try:
            answer = _in_time(lambda: self._requests().ask(command, arguments), _PATIENCE_S)
        except ConnectionError as error:
            if error.errno == errno.ENOTCONN:
                raise
            self._connected = None
            raise OSError(errno.EAGAIN, error.strerror) from error
        if "return" not in answer:
            raise RefusedRequest(errno.EINVAL, str(answer.get("error")))
        return answer["return"]

    def _requests(self) -> LibvirtRequests:
        if self._connected is None:
            libvirt, qemu = library()
            run_events(libvirt)
            try:
                connection = libvirt.open(self._uri)
            except libvirt.libvirtError as error:
                raise ConnectionResetError(errno.ECONNRESET, error.get_error_message()) from error
            try:
                domain = connection.lookupByUUIDString(self._uuid)
                qemu.qemuMonitorEventRegister(connection, domain, "RESUME", self._heard, None, 0)
            except libvirt.libvirtError as error:
                gone = error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
                code = errno.ENOTCONN if gone else errno.ECONNRESET
                raise ConnectionError(code, error.get_error_message()) from error
            self._connected = LibvirtRequests(domain)
        return self._connected

    def _heard(self, *event: Any) -> None:
        del event
        self.resumed = True


_starting = threading.Lock()
_loops: list[threading.Thread] = []


def run_events(libvirt: Any) -> None:
    """libvirt's event loop: a process has one, and cannot end it. To be called before its first
    connection. RuntimeError: no thread."""
    with _starting:
        if not _loops:
            libvirt.virEventRegisterDefaultImpl()

            def loop() -> None:
                while True:
                    libvirt.virEventRunDefaultImpl()

            thread = threading.Thread(target=loop, name="livedump-events", daemon=True)
            thread.start()
            _loops.append(thread)


def _in_time(work: Callable[[], Any], seconds: float) -> Any:
    """What it returns or raises. TimeoutError: it goes on on its own thread."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="livedump-libvirt", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s")
    return found[0]
