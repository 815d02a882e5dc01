# SPDX-License-Identifier: GPL-2.0-or-later
"""A worker, a host, the scheduler, the coordinator and the store die in the middle of a fleet dump
of real hosts: every machine runs on, and what is said names what has died. Most of it is in `make
test-fleet`."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import open_dump
from livedumpfs.errors import HostError
from livedumpfs.fleet import FleetSettings, Manifest, fleet_dump
from livedumpfs.fleet.cluster_workers import SchedulerGone
from livedumpfs.fleet.taking import Taking
from tests.fleet.clusters import AS_ROOT, ByHand, long
from tests.fleet.exchangers import DEADLINE_S, Exchangers, wait_until

ROOT = bool(AS_ROOT)
SLOW = {"sweep_rate": 512 << 10}
"""Bytes a second; 4 MiB are left to the sweep."""
FULL = {"sweep_rate": 256 << 20}


def settings(folder: Path, **more: Any) -> FleetSettings:
    return FleetSettings(
        str(folder / "dumps"),
        **{"how": "barrier", "deadline_s": 30.0, "lease_s": 30.0, "options": SLOW, **more},
    )


def dumped(client: Any, wanted: FleetSettings, meanwhile: Callable[[], None]) -> Manifest:
    """A fleet dump; `meanwhile` is called once while it is being saved."""
    begun = threading.Event()

    def watch(news: Mapping[str, Any]) -> None:
        if not begun.is_set() and any(one.saved.done for one in news.values()):
            begun.set()
            meanwhile()

    _, manifest = fleet_dump(client, wanted, allow_root=ROOT, watch=watch)
    assert begun.is_set()
    return manifest


def two(exchangers: Callable[..., Any], by_hand: Callable[..., Any]) -> tuple[Exchangers, ByHand]:
    hosts = exchangers(2)
    return hosts, by_hand(*hosts.mounts)


@long
def test_a_worker_dies_while_saving(
    exchangers: Callable[..., Any], by_hand: Callable[..., Any], tmp_path: Path
) -> None:
    hosts, cluster = two(exchangers, by_hand)
    with cluster.client() as client:
        manifest = dumped(client, settings(tmp_path), lambda: cluster.kill("worker1"))
    good, bad = manifest.members
    assert (good.verdict, bad.verdict, manifest.verdict) == (
        "consistent",
        "incomplete",
        "incomplete",
    )
    assert bad.reason and "its worker has died" in bad.reason
    assert manifest.reason and bad.name in manifest.reason
    with open_dump(str(good.dump)) as dump:
        assert dump.verdict == "consistent"
    hosts.runs_on()


@long
def test_a_host_dies_while_saving(
    exchangers: Callable[..., Any], by_hand: Callable[..., Any], tmp_path: Path
) -> None:
    hosts, cluster = two(exchangers, by_hand)
    with cluster.client() as client:
        manifest = dumped(client, settings(tmp_path), lambda: hosts.kill(1))
    good, bad = manifest.members
    assert (good.verdict, bad.verdict, manifest.verdict) == (
        "consistent",
        "incomplete",
        "incomplete",
    )
    assert bad.reason and "its host" in bad.reason, manifest
    hosts.runs_on(0)


@pytest.mark.parametrize(
    "phase",
    ["armed", *(pytest.param(one, marks=long) for one in ("init", "held", "saving"))],
)
def test_the_scheduler_dies(
    phase: str, exchangers: Callable[..., Any], by_hand: Callable[..., Any], tmp_path: Path
) -> None:
    hosts, cluster = two(exchangers, by_hand)

    async def until() -> None:
        taking = Taking(client, settings(tmp_path))
        await taking.find(allow_root=ROOT)
        await taking.init()
        if phase != "init":
            await taking.hold()
        if phase in ("armed", "saving"):
            await taking.arm()
        if phase == "saving":
            await taking.go()
        cluster.kill("scheduler")
        with pytest.raises(SchedulerGone, match=r"the scheduler tcp://\S+ does not answer"):
            await taking.save()
        await taking.leave("test")

    client = cluster.client()
    try:
        client.sync(until)
        hosts.runs_on()
        for name in ("worker0", "worker1"):
            assert cluster.processes[name].wait(DEADLINE_S) == 1
            assert "has gone, and with it what this worker began" in cluster.logs[name].read_text()
    finally:
        client.close(timeout=1)


@long
@pytest.mark.parametrize("phase", ["held", "armed"])
def test_a_worker_dies_in_the_barrier(
    phase: str, exchangers: Callable[..., Any], by_hand: Callable[..., Any], tmp_path: Path
) -> None:
    """The others are let go at once, and the whole fails."""
    hosts, cluster = two(exchangers, by_hand)

    async def barrier() -> None:
        taking = Taking(client, settings(tmp_path, deadline_s=5.0))
        await taking.find(allow_root=ROOT)
        await taking.init()
        await taking.hold()
        if phase == "armed":
            await taking.arm()
        cluster.kill("worker1")
        try:
            with pytest.raises(HostError, match=r"ARM of vm1@.* failed"):
                await taking.arm()
        finally:
            await taking.leave("test")

    with cluster.client() as client:
        client.sync(barrier)
    hosts.runs_on()


@long
def test_the_folder_of_the_dumps_goes(
    exchangers: Callable[..., Any], by_hand: Callable[..., Any], tmp_path: Path
) -> None:
    """The store's folder vanishes while it is written to."""
    hosts, cluster = two(exchangers, by_hand)
    place = tmp_path / "gone"
    place.mkdir()
    wanted = settings(tmp_path)

    def vanish() -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("a file now")

    store = f"store:{place}"
    with cluster.client() as client, pytest.raises(OSError, match=str(place)):
        dumped(client, FleetSettings(**{**vars(wanted), "to": store}), vanish)
    hosts.runs_on()
    with cluster.client() as client:  # the next one works
        _, manifest = fleet_dump(client, settings(tmp_path, options=FULL), allow_root=ROOT)
    assert manifest.verdict == "consistent"


@long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_coordinator_dies(
    number: int, exchangers: Callable[..., Any], by_hand: Callable[..., Any], tmp_path: Path
) -> None:
    """Ctrl-C releases all; a coordinator that is killed is not heard of any more."""
    hosts, cluster = two(exchangers, by_hand)
    words = ["dump", "--to", str(tmp_path / "dumps"), "--scheduler", cluster.address, "--insecure"]
    more = ["--barrier", "--deadline", "30", "--lease", "2", "--sweep-rate", "16K", *AS_ROOT]
    command = [sys.executable, "-m", "livedumpfs.cli", "fleet", *words, *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        begun = process.stderr.readline()
        assert begun.startswith("fleet dump "), begun
        assert not hosts.is_idle(0) and not hosts.is_idle(1)
    finally:
        process.send_signal(number)
    said = process.communicate(timeout=DEADLINE_S)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130, said
        assert "interrupted" in said and "Traceback" not in said
        assert hosts.is_idle(0) and hosts.is_idle(1), "released before it ended"
    hosts.runs_on()
    assert not list((tmp_path / "dumps").glob("*.fleet.json"))
    for path in (tmp_path / "dumps").glob("*.vmcore"):
        with open_dump(path) as dump:
            assert dump.verdict == "incomplete"


@long
def test_a_host_that_stands_still(
    exchangers: Callable[..., Any], by_hand: Callable[..., Any], tmp_path: Path
) -> None:
    """One that answers no more (SIGSTOP) in the barrier: the other is not kept beyond the
    deadline."""
    hosts, cluster = two(exchangers, by_hand)
    with cluster.client() as client:

        async def barrier() -> None:
            taking = Taking(client, settings(tmp_path, deadline_s=2.0))
            await taking.find(allow_root=ROOT)
            await taking.init()
            hosts.processes[1].send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(
                    HostError, match=r"HOLD of vm1@.* its host did not answer within 2 s"
                ):
                    await taking.by_barrier()
                await taking.leave("test")
                hosts.runs_on(0)
            finally:
                hosts.processes[1].send_signal(signal.SIGCONT)

        client.sync(barrier)
    hosts.runs_on()
    wait_until(lambda: hosts.is_idle(1), hosts.said)
