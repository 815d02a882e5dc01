# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of a fleet dump's steps, and what fails in each: with hosts that have no machine."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import simulated_members
from simulated_members import SimulatedHost, SimulatedMembers

from livedumpfs.errors import HostError, UsageError
from livedumpfs.fleet import FleetSettings, fleet_dump, read_manifest
from livedumpfs.fleet.cluster_workers import ClusterWorkers, Lost
from livedumpfs.fleet.manifest import Taken
from livedumpfs.fleet.taking import Taking
from tests.fleet.clusters import AS_ROOT
from tests.fleet.exchangers import wait_until
from tests.fleet.trouble import Trouble

ROOT = bool(AS_ROOT)
PATIENT = {"deadline_s": 30.0, "late_s": 60.0, "most_skew_s": 120.0}


def _hosts() -> list[str]:
    return list(SimulatedHost.standing)


def nothing_is_left() -> None:
    wait_until(
        lambda: not SimulatedHost.begun and not any(map(SimulatedHost.stands, _hosts())),
        lambda: f"{SimulatedHost.begun} {SimulatedHost.standing}",
    )


@pytest.mark.parametrize("how", ["barrier", "clock"])
def test_all_steps_in_order(how: Any, cluster: Callable[..., Any], tmp_path: Path) -> None:
    trouble = Trouble()
    client = cluster(2, SimulatedMembers(3, trouble))
    settings = FleetSettings(str(tmp_path), how=how, **PATIENT)
    path, manifest = fleet_dump(client, settings, allow_root=ROOT)
    assert (manifest.verdict, manifest.one_instant) == ("consistent", how == "barrier")
    assert len(manifest.members) == 6 and read_manifest(path) == manifest
    steps = trouble.steps()
    order = ["hold", "arm", "go", "sweep"] if how == "barrier" else ["start", "sweep"]
    assert steps[:6] == ["init"] * 6
    for before, after in zip(["init", *order], order, strict=False):
        if after != "sweep":  # each goes on by itself then
            last = max(i for i, step in enumerate(steps) if step == before)
            assert last < steps.index(after), steps
    nothing_is_left()


@pytest.mark.parametrize(
    ("how", "step"),
    [("clock", "init"), ("clock", "start"), ("barrier", "hold"), ("barrier", "arm")],
)
def test_one_that_cannot_fails_the_whole(
    how: Any, step: str, cluster: Callable[..., Any], tmp_path: Path
) -> None:
    trouble = Trouble(step, "/1")
    client = cluster(2, SimulatedMembers(2, trouble))
    with pytest.raises(HostError, match=rf"{step.upper()} of vm0001-.*: no {step} today") as caught:
        fleet_dump(client, FleetSettings(str(tmp_path), how=how, **PATIENT), allow_root=ROOT)
    assert "worker tcp://" in str(caught.value)
    assert not list(tmp_path.iterdir()), "no manifest"
    nothing_is_left()
    later = {"init": {"hold", "arm", "start"}, "hold": {"arm", "go"}, "arm": {"go"}}
    assert not later.get(step, set()) & set(trouble.steps())


class Recorded(SimulatedHost):
    """Its instants are kept."""

    instants_ns: ClassVar[list[int]] = []

    def start(self, at_ns: int, late_ns: int) -> Taken:
        found = super().start(at_ns, late_ns)
        self.instants_ns.append(found.instant_ns)
        return found


class SetBack(Recorded):
    """The clock of its computer is set back by 3 s after the clocks were compared."""

    STEP_NS = 3_000_000_000

    def start(self, at_ns: int, late_ns: int) -> Taken:
        found = super().start(at_ns + self.STEP_NS, late_ns)
        return msgspec.structs.replace(found, instant_ns=found.instant_ns - self.STEP_NS)


def test_a_clock_that_is_set_meanwhile(
    cluster: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both instants show the agreed time, and are 3 s apart, or what the machine's load made of
    that."""

    def made(device: str, *more: Any) -> SimulatedHost:
        return (SetBack if device.endswith("/1") else Recorded)(device, *more)

    monkeypatch.setattr(Recorded, "instants_ns", [])

    monkeypatch.setattr(simulated_members, "SimulatedHost", made)
    client = cluster(1, SimulatedMembers(2))
    settings = FleetSettings(str(tmp_path), late_s=60.0)
    _, manifest = fleet_dump(client, settings, allow_root=ROOT)
    apart = max(Recorded.instants_ns) - min(Recorded.instants_ns)
    assert manifest.skew and manifest.skew.ns == pytest.approx(apart, rel=0.1)
    assert (manifest.verdict, manifest.one_instant) == ("torn", False)
    assert manifest.reason and "the instants may be" in manifest.reason


@pytest.mark.parametrize("step", ["init", "hold", "arm"])
def test_best_effort_goes_on_without_it(
    step: str, cluster: Callable[..., Any], tmp_path: Path
) -> None:
    client = cluster(2, SimulatedMembers(2, Trouble(step, "/1"), saving_s=1.0))
    settings = FleetSettings(str(tmp_path), how="barrier", best_effort=True, **PATIENT)
    begun: list[set[str]] = []

    def watch(news: Any) -> None:
        begun.append(set(SimulatedHost.begun))

    _, manifest = fleet_dump(client, settings, allow_root=ROOT, watch=watch)
    assert any(len(one) == 2 for one in begun), "those left out are released meanwhile"
    assert (manifest.verdict, manifest.one_instant) == ("consistent", True)
    assert len(manifest.members) == len(manifest.left_out) == 2
    assert all(one.why == f"{step.upper()}: no {step} today" for one in manifest.left_out)
    assert manifest.reason and "without vm0001-" in manifest.reason
    nothing_is_left()


def test_a_slow_hold_lets_the_others_go(cluster: Callable[..., Any], tmp_path: Path) -> None:
    """The deadline is each host's own, and the coordinator's."""
    client = cluster(2, SimulatedMembers(1, Trouble("hold", "/0", wait_s=1.5)))
    settings = FleetSettings(str(tmp_path), how="barrier", deadline_s=0.3)
    with pytest.raises(HostError, match=r"HOLD of vm0000-.* its host did not answer within 0.3 s"):
        fleet_dump(client, settings, allow_root=ROOT)
    nothing_is_left()


def test_a_hold_that_ran_out_is_no_part_of_the_barrier(
    cluster: Callable[..., Any], tmp_path: Path
) -> None:
    """It was armed, and its deadline let it go before all were."""
    client = cluster(1, SimulatedMembers(3, Trouble("go", "/1", wait_s=3)))
    settings = FleetSettings(str(tmp_path), how="barrier", deadline_s=1.5)
    _, manifest = fleet_dump(client, settings, allow_root=ROOT)
    assert [one.held for one in manifest.members] == [True, False, True]
    assert [one.verdict for one in manifest.members] == ["consistent"] * 3
    assert (manifest.verdict, manifest.one_instant) == ("torn", False)
    assert manifest.reason and "did not stand until all members were armed" in manifest.reason
    nothing_is_left()


def test_a_step_that_is_asked_twice_is_taken_once(
    cluster: Callable[..., Any], tmp_path: Path
) -> None:
    trouble = Trouble()
    client = cluster(2, SimulatedMembers(2, trouble))

    async def twice() -> None:
        taking = Taking(client, FleetSettings(str(tmp_path), **PATIENT))
        await taking.find(allow_root=ROOT)
        for _ in range(2):
            await taking.init()
            await taking.at_clock()
        await taking.save()
        assert taking.manifest().verdict == "consistent"
        await taking.leave("done")

    client.sync(twice)
    assert trouble.steps().count("start") == 4 == trouble.steps().count("sweep")
    nothing_is_left()


def test_a_coordinator_that_is_not_heard_of(cluster: Callable[..., Any], tmp_path: Path) -> None:
    """In each phase: the workers live, and release what they began."""
    client = cluster(2, SimulatedMembers(2, saving_s=3600))

    async def until(phase: str) -> None:
        taking = Taking(client, FleetSettings(str(tmp_path), how="barrier", lease_s=0.5, **PATIENT))
        await taking.find(allow_root=ROOT)
        await taking.init()
        if phase == "held":
            await taking.hold()
        if phase == "saving":
            await taking.by_barrier()

    for phase in ("initialised", "held", "saving"):
        client.sync(until, phase)
        nothing_is_left()


def test_an_interrupt_releases_all(cluster: Callable[..., Any], tmp_path: Path) -> None:
    client = cluster(2, SimulatedMembers(2, saving_s=3600))

    settings = FleetSettings(str(tmp_path), **PATIENT)
    with pytest.raises(KeyboardInterrupt):
        fleet_dump(
            client, settings, allow_root=ROOT, watch=lambda _: os.kill(os.getpid(), signal.SIGINT)
        )
    nothing_is_left()
    assert not list(tmp_path.iterdir())


def test_a_worker_that_is_busy_takes_part(cluster: Callable[..., Any], tmp_path: Path) -> None:
    """Steps do not wait behind its tasks."""
    client = cluster(1, SimulatedMembers(1))
    go_on = threading.Event()
    _events[0] = go_on
    busy = client.submit(_wait, 0)
    try:
        settings = FleetSettings(str(tmp_path), how="barrier", **PATIENT)
        _, manifest = fleet_dump(client, settings, allow_root=ROOT)
        assert manifest.verdict == "consistent" and not busy.done()
    finally:
        go_on.set()
    busy.result(60)


_events: dict[int, threading.Event] = {}


def _wait(number: int) -> None:
    _events[number].wait(300)


def test_members_that_are_named(cluster: Callable[..., Any], tmp_path: Path) -> None:
    client = cluster(1, SimulatedMembers(3))
    settings = FleetSettings(str(tmp_path), **PATIENT)
    with pytest.raises(UsageError, match=r"no member is called x \(there are vm0000-"):
        fleet_dump(client, settings, members=["x"], allow_root=ROOT)
    _, manifest = fleet_dump(client, settings, allow_root=ROOT)
    names = [one.name for one in manifest.members]
    _, manifest = fleet_dump(client, settings, members=names[1:2], allow_root=ROOT)
    assert [one.name for one in manifest.members] == names[1:2]


def test_a_cluster_without_hosts(cluster: Callable[..., Any], tmp_path: Path) -> None:
    client = cluster(1, SimulatedMembers(0))
    with pytest.raises(HostError, match="none of the 1 workers has a host that it may control"):
        fleet_dump(client, FleetSettings(str(tmp_path)), allow_root=ROOT)


@pytest.mark.skipif(not ROOT, reason="the workers are not root")
def test_workers_that_are_root_are_refused(cluster: Callable[..., Any], tmp_path: Path) -> None:
    client = cluster(1, SimulatedMembers(1))
    with pytest.raises(UsageError, match=r"worker tcp://\S+ runs as root"):
        fleet_dump(client, FleetSettings(str(tmp_path)))
    nothing_is_left()


@pytest.mark.parametrize(
    "wrong",
    [{"deadline_s": 0}, {"lease_s": -1}, {"how": "barrier", "deadline_s": 61}, {"to": "s3://x/y"},
     {"to": "store:x", "options": {"format": "kdump"}}],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        FleetSettings(**{"to": "x", **wrong}).check()


@pytest.mark.parametrize("workers", [1, 2])
def test_best_effort_does_not_wait_for_a_slow_hold(
    workers: int, cluster: Callable[..., Any], tmp_path: Path
) -> None:
    """The others are armed and let go before their deadline; also those of the same worker."""
    trouble = Trouble("hold", "/0", wait_s=8)
    client = cluster(workers, SimulatedMembers(2, trouble))
    trouble.host = min(client.scheduler_info()["workers"]).rpartition("/")[2] + "/0"
    settings = FleetSettings(str(tmp_path), how="barrier", deadline_s=6.0, best_effort=True)
    _, manifest = fleet_dump(client, settings, allow_root=ROOT)
    assert (manifest.verdict, manifest.one_instant) == ("consistent", True), manifest
    assert len(manifest.members) == 2 * workers - 1
    assert [one.why for one in manifest.left_out] == ["HOLD: its host did not answer within 3 s"]
    nothing_is_left()


def test_one_worker_that_hangs_keeps_no_answers_of_others() -> None:
    """Of those that share its message."""
    asked: list[list[str]] = []

    class Hanging:
        status = "running"
        scheduler = None

        async def run(self, function: Any, *, workers: list[str], on_error: str) -> dict[str, int]:
            asked.append(workers)
            if "w1" in workers:
                await asyncio.sleep(60)
            return dict.fromkeys(workers, 7)

    async def ask() -> list[Any]:
        caller = ClusterWorkers(Hanging())
        names = [f"w{i}" for i in range(70)]
        return await caller.all(_nothing, workers=names, within_s=0.2)

    found = {one.worker: one for one in asyncio.run(ask())}
    assert len(found) == 70 and max(map(len, asked)) == 3
    assert [name for name, one in found.items() if isinstance(one, Lost)] == ["w1"]


async def _nothing() -> None:
    pass


def test_others_wait_for_a_slow_init(cluster: Callable[..., Any], tmp_path: Path) -> None:
    """Longer than their lease."""
    trouble = Trouble("init", "/0", wait_s=2)
    client = cluster(2, SimulatedMembers(1, trouble))
    trouble.host = min(client.scheduler_info()["workers"]).rpartition("/")[2] + "/0"
    settings = FleetSettings(str(tmp_path), how="barrier", lease_s=0.8, **PATIENT)
    _, manifest = fleet_dump(client, settings, allow_root=ROOT)
    assert (manifest.verdict, len(manifest.members)) == ("consistent", 2)
