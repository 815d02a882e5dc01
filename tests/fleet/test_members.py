# SPDX-License-Identifier: GPL-2.0-or-later
"""One member: what goes wrong from its opening to its end, with hosts that have no machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulated_members import NoLanding, SimulatedHost, SimulatedMembers

from livedumpfs.errors import HostError, InvalidDump
from livedumpfs.fleet import FleetSettings, fleet_dump, worker_side
from livedumpfs.fleet.landing import FileLanding, Landed
from livedumpfs.fleet.member import Member
from livedumpfs.fleet.steps import Saved
from livedumpfs.fleet.worker_side import WorkerFleet
from livedumpfs.hosts.usable import HostHere
from tests.fleet.clusters import AS_ROOT
from tests.fleet.exchangers import wait_until
from tests.fleet.trouble import Trouble

DEADLINE_S = 60.0
ROOT = bool(AS_ROOT)


def member_of(
    steps: Callable[[], SimulatedHost],
    land: Callable[[Any], Any] = lambda _: NoLanding("", "x", "elf"),
) -> Member:
    """That is being saved."""
    member = Member("x", os.urandom(16), steps, land)
    member.submit(member.open).result(DEADLINE_S)
    member.submit(lambda: member.init({})).result(DEADLINE_S)
    member.submit(lambda: member.hold(DEADLINE_S)).result(DEADLINE_S)
    member.submit(member.arm).result(DEADLINE_S)
    return member


def end_of(member: Member) -> Any:
    wait_until(lambda: member.seen().outcome is not None, lambda: str(member.seen()))
    return member.seen().outcome


def test_a_sweep_that_fails_is_in_the_outcome() -> None:
    """GO gives the instant all the same, also when it is asked again."""
    trouble = Trouble("sweep", "h")
    member = member_of(lambda: SimulatedHost("h", trouble, 0.0))
    taken = member.submit(member.go).result(DEADLINE_S)
    found = end_of(member)
    assert (found.verdict, found.reason) == ("incomplete", "no sweep today")
    assert member.submit(member.go).result(DEADLINE_S) == taken
    assert trouble.steps().count("go") == 1 and "h" not in SimulatedHost.begun


def test_a_host_that_hangs_while_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedumpfs.fleet.member.HANGS_S", 0.3)
    go_on = threading.Event()

    def hang(host: str, step: str) -> None:
        if step == "saved":
            go_on.wait(DEADLINE_S)

    member = member_of(lambda: SimulatedHost("h", hang, 3600))
    member.submit(member.go).result(DEADLINE_S)
    found = end_of(member)
    assert (found.verdict, found.reason) == ("incomplete", "its host has given no answer for 0.3 s")
    member.leave("it was lost")
    go_on.set()
    wait_until(lambda: "h" not in SimulatedHost.begun, lambda: str(SimulatedHost.begun))


class Broken(SimulatedHost):
    """Its target has run full."""

    def saved(self) -> Saved:
        return Saved(1, 4096, 0, True, "incomplete", "No space left on device")


def test_an_incomplete_dump_keeps_its_cause(tmp_path: Path) -> None:
    (tmp_path / "x.vmcore.incomplete").touch()
    member = member_of(
        lambda: Broken("h", Trouble(), 0.0), lambda _: FileLanding(str(tmp_path), "x", "elf")
    )
    member.submit(member.go).result(DEADLINE_S)
    found = end_of(member)
    assert (found.verdict, found.reason) == ("incomplete", "No space left on device")
    assert found.dump == str(tmp_path / "x.vmcore.incomplete")


class Torn(NoLanding):
    """What arrives is worth less than the host has said."""

    def finish(self, dump_id: bytes) -> Landed:
        return Landed(self.path, "x:", "torn")


class Foreign(NoLanding):
    def finish(self, dump_id: bytes) -> Landed:
        raise InvalidDump("it is another dump")


@pytest.mark.parametrize(
    ("land", "verdict", "reason"),
    [
        (Torn, "torn", "what has arrived says that it is torn"),
        (Foreign, "incomplete", "it is another dump"),
    ],
)
def test_what_has_arrived_counts(land: type[NoLanding], verdict: str, reason: str) -> None:
    member = member_of(lambda: SimulatedHost("h", Trouble(), 0.0), lambda _: land("", "x", "elf"))
    member.submit(member.go).result(DEADLINE_S)
    found = end_of(member)
    assert (found.verdict, found.reason) == (verdict, reason)


class HangsWhenOpened(SimulatedMembers):
    """Its first host."""

    go_on = threading.Event()

    def setup(self, worker: Any) -> None:
        super().setup(worker)
        fleet = worker.extensions[worker_side.EXTENSION]
        known = fleet._open

        def open_host(device: str) -> Any:
            if device.endswith("/0"):
                HangsWhenOpened.go_on.wait(DEADLINE_S)
            return known(device)

        fleet._open = open_host


def test_a_host_that_hangs_keeps_no_other(
    cluster: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its worker; also when it is tried more often than a worker has threads for its calls."""
    monkeypatch.setattr(worker_side, "OPEN_S", 0.2)
    HangsWhenOpened.go_on.clear()
    client = cluster(1, HangsWhenOpened(2))
    try:
        with pytest.raises(HostError, match=r"vm0000-.* did not answer within 0.2 s"):
            fleet_dump(client, FleetSettings(str(tmp_path)), allow_root=ROOT)
        for _ in range((os.cpu_count() or 1) + 6):
            settings = FleetSettings(str(tmp_path), best_effort=True, late_s=60.0)
            _, manifest = fleet_dump(client, settings, allow_root=ROOT)
            assert len(manifest.members) == len(manifest.left_out) == 1, manifest
            assert manifest.members[0].verdict == "consistent"
    finally:
        HangsWhenOpened.go_on.set()
    wait_until(lambda: not SimulatedHost.begun, lambda: str(SimulatedHost.begun))


def test_a_named_host_that_hangs(
    cluster: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its worker are found."""
    monkeypatch.setattr(worker_side, "HERE_S", 0.2)
    go_on = threading.Event()

    def listed(named: Any) -> Any:
        if named == ("bad",):
            go_on.wait(DEADLINE_S)
        return [HostHere(named[0], named[0], "simulated", named[0])]

    client = cluster(1, SimulatedMembers(0))
    fleet = WorkerFleet(
        ("bad", "good"), list_hosts=listed, land=NoLanding,
        open_steps=lambda device: SimulatedHost(device, Trouble(), 0.0),
    )  # fmt: skip
    _fleets[0] = fleet
    client.run(_use)
    try:
        with pytest.raises(HostError, match="host bad cannot be used: its host did not answer"):
            fleet_dump(client, FleetSettings(str(tmp_path)), allow_root=ROOT)
        settings = FleetSettings(str(tmp_path), best_effort=True, late_s=60.0)
        _, manifest = fleet_dump(client, settings, allow_root=ROOT)
        assert [one.name.partition("@")[0] for one in manifest.members] == ["good"]
        assert manifest.left_out[0].name.startswith("host bad of worker ")
    finally:
        go_on.set()


HANGING_LOOP = Path(__file__).parents[1] / "fixtures" / "programs" / "hanging_loop.py"
_fleets: dict[int, WorkerFleet] = {}


def _use(dask_worker: Any) -> None:
    dask_worker.extensions[worker_side.EXTENSION] = _fleets[0]


def test_a_worker_whose_thread_hangs_ends() -> None:
    """It waits for no thread of its loop: nothing could end that one."""
    command = [sys.executable, str(HANGING_LOOP)]
    assert subprocess.run(command, timeout=DEADLINE_S, check=False).returncode == 7


def test_leaving_needs_no_new_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there can be none, it is done here; and what was asked for is done when it returns."""
    member = member_of(lambda: SimulatedHost("h", Trouble(), 3600))
    monkeypatch.setattr(worker_side, "on_its_own", _no_thread)
    assert worker_side._leave([member], "it is over") == []
    assert not SimulatedHost.stands("h") and "h" not in SimulatedHost.begun


def _no_thread(*_: Any) -> Any:
    raise RuntimeError("can't start new thread")
