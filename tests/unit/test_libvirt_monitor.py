# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's monitor through libvirt, with a libvirt of a few lines; `make test-libvirt` takes a real
one."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach import libvirt_requests
from livedumpfs.machines.attach.libvirt_monitor import LibvirtMonitor
from livedumpfs.machines.attach.libvirt_requests import PatientRequests
from livedumpfs.machines.attach.lifeline_program import requests_to
from livedumpfs.machines.attach.lifeline_requests import RefusedRequest

UUID = "342f98fb-b0a3-4fc1-9af0-ae7321df6895"
NO_DOMAIN, TIMEOUT, OTHER = 42, 68, 1


class LibvirtError(Exception):
    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code, self.words = code, words

    def get_error_code(self) -> int:
        return self.code

    def get_error_message(self) -> str:
        return self.words


class Fake:
    """libvirt, one domain, and its QEMU, which does what `answers` says."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Any], object]] = {
            "query-version": lambda given: {"return": {}},
            "query-status": lambda given: {"return": {"status": "running"}},
            "human-monitor-command": lambda given: {"return": given["command-line"] + "\r\n"},
        }
        self.files: list[tuple[str, int]] = []
        self.active = True
        self.closed = False
        self.opened = 0
        self.refuses = 0
        self.event: Any = None
        self.changed: Any = None

    # What of libvirt.virConnect and libvirt.virDomain is used.

    def open(self, uri: str | None) -> Fake:
        self.opened += 1
        self.closed = False
        if self.refuses:
            self.refuses -= 1
            raise LibvirtError(OTHER, "no libvirtd")
        return self

    def getURI(self) -> str:
        return "qemu:///system"

    def getType(self) -> str:
        return "QEMU"

    def lookupByUUIDString(self, uuid: str) -> Fake:
        return self.lookupByName("guest" if uuid == UUID else "")

    def lookupByName(self, name: str) -> Fake:
        if name != "guest":
            raise LibvirtError(NO_DOMAIN, "no domain with matching name")
        return self

    def domainEventRegisterAny(self, domain: Any, kind: int, call: Any, opaque: Any) -> int:
        self.changed = call
        return 1

    def nothing(self, *given: Any) -> int:
        return 0

    setKeepAlive = registerCloseCallback = unregisterCloseCallback = nothing
    domainEventDeregisterAny = nothing

    def close(self) -> int:
        self.closed = True
        return 0

    def isActive(self) -> bool:
        return self.active

    def isAlive(self) -> bool:
        if self.closed:
            raise LibvirtError(OTHER, "invalid connection pointer")
        return self.active

    def connect(self) -> Fake:
        return self

    def name(self) -> str:
        return "guest"

    def UUIDString(self) -> str:
        return UUID

    # What of libvirt_qemu is.

    def command(self, domain: Any, text: str, flags: int) -> str:
        request = json.loads(text)
        return json.dumps(self.answers[request["execute"]](request.get("arguments")))

    def with_files(
        self, domain: Any, text: str, files: list[int], flags: int
    ) -> tuple[str, list[Any]]:
        self.files += [(json.loads(text)["arguments"]["fdname"], one) for one in files]
        return json.dumps({"return": {}}), []

    def listen(self, connection: Any, domain: Any, event: Any, call: Any, *more: Any) -> int:
        self.event = call
        return 2


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    found, library, qemu = Fake(), types.ModuleType("libvirt"), types.ModuleType("libvirt_qemu")
    library.__dict__.update(
        libvirtError=LibvirtError, open=found.open, registerErrorHandler=found.nothing,
        virEventRegisterDefaultImpl=found.nothing, virEventRunDefaultImpl=threading.Event().wait,
        VIR_ERR_NO_DOMAIN=NO_DOMAIN, VIR_ERR_OPERATION_TIMEOUT=TIMEOUT,
        VIR_ERR_AGENT_UNRESPONSIVE=86, VIR_DOMAIN_EVENT_ID_LIFECYCLE=0,
        VIR_DOMAIN_EVENT_STOPPED=5, VIR_DOMAIN_EVENT_CRASHED=8, __file__="/some/where/libvirt.py",
    )  # fmt: skip
    qemu.__dict__.update(
        qemuMonitorCommand=found.command, qemuMonitorCommandWithFiles=found.with_files,
        qemuMonitorEventRegister=found.listen, qemuMonitorEventDeregister=found.nothing,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "libvirt", library)
    monkeypatch.setitem(sys.modules, "libvirt_qemu", qemu)
    monkeypatch.setattr(libvirt_requests, "_loops", [])
    yield found


def open_one(heard: list[Any] | None = None, name: str = "guest") -> LibvirtMonitor:
    return LibvirtMonitor(name, [].append if heard is None else heard.append)


def raises(fake: Fake, answer: Callable[[Any], object], code: int) -> str:
    """The sentence for a request that fails so."""
    fake.answers["stop"] = answer
    with open_one() as monitor, pytest.raises(MachineError) as found:
        monitor.execute("stop", timeout=0.2)
    assert found.value.errno == code
    return found.value.message


def throw(error: Exception) -> Callable[[Any], object]:
    def answer(given: Any) -> object:
        raise error

    return answer


@pytest.mark.parametrize("name", ["guest", UUID])
def test_requests_answers_and_files(fake: Fake, name: str) -> None:
    with open_one(name=name) as monitor:
        assert monitor.status() == "running" and monitor.hmp("info x") == "info x\n"
        monitor.send_file("stream", 7)
        assert fake.files == [("stream", 7)]
        assert monitor.place == "domain guest of qemu:///system" and UUID in monitor.whose
        assert "tainted" in monitor.taints


def test_it_is_closed_twice(fake: Fake) -> None:
    with open_one() as monitor:
        monitor.close()
    assert fake.closed


def test_events_have_the_form_of_qmp(fake: Fake) -> None:
    heard: list[Any] = []
    with open_one(heard):
        fake.event(fake, fake, "STOP", 12, 345, "{}", None)
    assert heard == [{"event": "STOP", "timestamp": {"seconds": 12, "microseconds": 345}}]


def test_the_end_of_the_domain(fake: Fake) -> None:
    with open_one() as monitor:
        fake.changed(fake, fake, 4, 0, None)  # it was let run
        assert monitor.connected
        fake.changed(fake, fake, 5, 0, None)
        assert not monitor.connected


def test_what_goes_wrong_has_its_cause(fake: Fake) -> None:
    refused = {"error": {"class": "GenericError", "desc": "not now"}}
    assert raises(fake, lambda given: refused, errno.EINVAL) == "QEMU refuses 'stop': not now"
    said = raises(fake, throw(LibvirtError(TIMEOUT, "no job")), errno.ETIMEDOUT)
    assert said == "QEMU does not answer 'stop' within 0.2 s"
    said = raises(fake, throw(LibvirtError(OTHER, "not allowed")), errno.EIO)
    assert said == "libvirt cannot send 'stop' to QEMU: not allowed"
    hold = threading.Event()
    try:
        said = raises(fake, lambda given: hold.wait(), errno.ETIMEDOUT)
        assert said == "QEMU does not answer 'stop' within 0.2 s"
    finally:
        hold.set()

    def ends(given: Any) -> object:
        fake.active = False
        raise LibvirtError(OTHER, "domain is not running")

    said = raises(fake, ends, errno.ECONNRESET)
    assert said == "QEMU or libvirt has gone before it answered 'stop': domain is not running"


def test_domains_that_cannot_be_reached(fake: Fake) -> None:
    with pytest.raises(MachineError, match="cannot reach the domain other: no domain") as found:
        open_one(name="other")
    assert found.value.errno == errno.ENOENT
    fake.active = False
    with pytest.raises(MachineError, match="the domain guest does not run"):
        open_one()
    fake.active, fake.refuses = True, 1
    with pytest.raises(MachineError, match="cannot reach the domain guest: no libvirtd"):
        open_one()


def test_a_lifeline_connects_again(fake: Fake) -> None:
    with open_one() as monitor:
        way = monitor.for_lifeline()
    assert list(way.fds) == []
    path = list(sys.path)
    try:
        requests = requests_to(list(way.words))
        assert sys.path[-1] == os.path.dirname("/some/where/libvirt.py")
    finally:
        sys.path[:] = path
    assert isinstance(requests, PatientRequests)
    fake.refuses, before = 1, fake.opened
    with pytest.raises(OSError, match="no libvirtd") as found:
        requests.ask("query-status")
    assert not isinstance(found.value, ConnectionError), "it is tried again"
    for _ in range(2):
        assert requests.ask("query-status") == {"status": "running"}
    assert fake.opened == before + 2
    fake.answers["closefd"] = lambda given: {"error": {"desc": "no such file"}}
    with pytest.raises(RefusedRequest):
        requests.ask("closefd", {"fdname": "stream"})
    assert not requests.resumed
    fake.event(fake, fake, "RESUME", 1, 2, "{}", None)
    assert requests.resumed


def test_a_lifeline_gives_up_a_domain_that_has_ended(fake: Fake) -> None:
    with pytest.raises(ConnectionError) as found:
        PatientRequests("qemu:///system", "00000000").ask("query-status")
    assert found.value.errno == errno.ENOTCONN
