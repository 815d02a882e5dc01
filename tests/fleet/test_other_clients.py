# SPDX-License-Identifier: GPL-2.0-or-later
"""Members of a fleet, and another client of the same host: nothing of its is released, and nothing
that it did is taken for ours."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.client import Client, InitOptions
from livedumpfs.dumpfile import open_dump
from livedumpfs.errors import HostError, LivedumpError
from livedumpfs.fleet import FleetSettings, fleet_dump
from livedumpfs.fleet.host_steps import HostSteps
from livedumpfs.fleet.landing import open_landing
from livedumpfs.fleet.manifest import How
from livedumpfs.fleet.member import Member, MemberOutcome
from livedumpfs.fleet.plugin import FleetPlugin
from livedumpfs.fleet.steps import Saved, Wanted
from tests.fixtures.hosts import HostMaker
from tests.fixtures.unicorn_guests import needs_ledger
from tests.fleet.clusters import AS_ROOT
from tests.fleet.exchangers import wait_until

pytestmark = needs_ledger
LONG_S = 50.0


class HeldLooks(HostSteps):
    """A host that the member looks at `looks` times, and again when `look_on` is set."""

    def __init__(self, device: str, looks: int) -> None:
        super().__init__(device)
        self.left = looks
        self.looked, self.look_on = threading.Event(), threading.Event()
        """All those looks are over; there may be more."""

    def saved(self) -> Saved:
        if self.left:
            self.left -= 1
        else:
            self.looked.set()
            assert self.look_on.wait(LONG_S)
        return super().saved()


def member_of(steps: HostSteps, folder: Path, **options: Any) -> tuple[Member, bytes]:
    """After START; it saves."""
    dump_id = os.urandom(16)
    member = Member("x", dump_id, lambda: steps, lambda _: open_landing(str(folder), "x", "elf"))
    member.submit(member.open).result(LONG_S)
    member.submit(lambda: member.init(options)).result(LONG_S)
    member.submit(lambda: member.start(time.time_ns(), int(LONG_S * 1e9))).result(LONG_S)
    return member, dump_id


def outcome_of(member: Member) -> MemberOutcome:
    wait_until(lambda: member.news.outcome is not None, lambda: str(member.news))
    assert member.news.outcome
    return member.news.outcome


def test_the_dump_of_another_stays(
    run_host: HostMaker, cluster: Callable[..., Any], tmp_path: Path
) -> None:
    """INIT of the fleet dump is refused, and its members leave."""
    host = run_host()
    (tmp_path / "to").mkdir()
    workers = cluster(1, FleetPlugin(host.device))
    with Client(host.device) as other:
        dump_id = other.init_as(None, str(tmp_path / "mine"))
        other.hold(dump_id, LONG_S)
        ways: tuple[How, ...] = "barrier", "clock"
        for how in ways:
            settings = FleetSettings(str(tmp_path / "to"), how=how)
            with pytest.raises(HostError, match="there is a dump already"):
                fleet_dump(workers, settings, allow_root=bool(AS_ROOT))
        other.arm(dump_id)
        other.go(dump_id)
        other.sweep_as(dump_id)
        assert other.finish(LONG_S).verdict.name == "CONSISTENT"
        other.release()


@pytest.mark.parametrize("when", ["before ARM", "before GO", "never"])
def test_a_step_of_another_is_not_ours(run_host: HostMaker, when: str) -> None:
    """ARM and GO are answered as they were taken: the machine ran before all others stood."""
    host = run_host()
    steps = HostSteps(host.device)
    try:
        steps.init(Wanted(os.urandom(16), None, {}))
        steps.hold(LONG_S)
        with Client(host.device) as other:
            if when == "before ARM":
                other.arm(None)
                other.go(None)
            steps.arm()
            if when == "before GO":
                other.go(None)
        assert steps.go().stood is (when == "never")
    finally:
        steps.release()
        steps.close()


def test_the_status_of_another_dump_is_not_ours(run_host: HostMaker, tmp_path: Path) -> None:
    """It takes the place of ours, which is not whole, between two looks."""
    host = run_host()
    steps = HeldLooks(host.device, 1)
    member, _ = member_of(steps, tmp_path, sweep_rate=1)
    assert steps.looked.wait(LONG_S)
    with Client(host.device) as other:
        other.release()
        theirs = other.init_as(None, str(tmp_path / "theirs"))
        other.start()
        other.sweep()
        steps.look_on.set()
        found = outcome_of(member)
        assert (found.verdict, found.checksum) == ("incomplete", None)
        assert found.reason and "is not the dump of this host" in found.reason
        assert other.finish(LONG_S).verdict.name == "CONSISTENT", "and theirs goes on"
        assert other.stats()["id"] == theirs.hex()
        other.release()


def test_a_whole_dump_that_another_releases(run_host: HostMaker, tmp_path: Path) -> None:
    """Before the member looks."""
    host = run_host()
    steps = HeldLooks(host.device, 0)
    member, dump_id = member_of(steps, tmp_path)
    with Client(host.device) as other:
        wait_until(lambda: other.status().finished, lambda: str(other.status()))
        other.release()
    steps.look_on.set()
    found = outcome_of(member)
    assert (found.verdict, found.reason) == ("consistent", None)
    assert found.dump and found.checksum
    with open_dump(found.dump) as dump:
        assert (dump.dump_id, dump.verdict) == (dump_id, "consistent")


def test_a_release_before_init(run_host: HostMaker) -> None:
    host = run_host()
    steps = HostSteps(host.device)
    with Client(host.device) as other:
        dump_id = other.init_as(None, None, InitOptions())
        steps.release()
        with pytest.raises(LivedumpError, match="there is a dump already"):
            steps.init(Wanted(os.urandom(16), None, {}))
        steps.release()
        steps.close()
        assert other.status().state == 1 and other.stats()["id"] == dump_id.hex()
        other.release()
