# SPDX-License-Identifier: GPL-2.0-or-later
"""Fleet dumps into a store: each member reads what may have changed since its last one there, or
all of its memory, and says which and why. Each dump has all bytes of its instant."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs.cli.fleet_command import print_manifest
from livedumpfs.cli.fleet_progress import FleetLines
from livedumpfs.dumpfile import verify_store
from livedumpfs.fleet import FleetSettings, Manifest, fleet_dump
from livedumpfs.fleet.manifest import MemberIncrement, MemberRecord
from livedumpfs.fleet.member import MemberOutcome, News
from livedumpfs.fleet.plugin import FleetPlugin
from livedumpfs.fleet.steps import Saved
from livedumpfs.stores import open_store
from tests.fixtures.hosts import HostMaker, RunningHost
from tests.fixtures.unicorn_guests import needs_ledger
from tests.fleet.clusters import AS_ROOT, in_process
from tests.stores.instants import is_of_the_instant

pytestmark = needs_ledger
LONG = {"late_s": 60.0, "most_skew_s": 120.0}
Fleet = Callable[..., dict[str, MemberRecord]]
FIRST = "there is no earlier dump since which the machine has kept track of changes"
UNTRACKED = "its host keeps no track of changes (control/track)"
SIGBUS = (
    "changes are tracked with backend sigsegv alone, and this is sigbus; set backend to sigsegv"
)


@pytest.fixture
def host(run_host: HostMaker) -> Callable[[bool], RunningHost]:
    """host(tracked): one; most of its memory is left alone between two dumps."""

    def made(tracked: bool) -> RunningHost:
        found = run_host(rate=20)
        set_control(found, "track", str(int(tracked)))
        return found

    return made


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """fleet(*hosts, how="barrier"): a dump of them into the store, each compared with its instant;
    what the manifest says, by device."""
    store = str(tmp_path / "store")

    def dumped(*hosts: RunningHost, how: Any = "barrier") -> dict[str, MemberRecord]:
        with in_process(1, FleetPlugin(*(one.device for one in hosts))) as client:
            settings = FleetSettings(f"store:{store}", how, deadline_s=50, **LONG)
            _, manifest = fleet_dump(client, settings, allow_root=bool(AS_ROOT))
        assert manifest.verdict == "consistent", manifest.reason
        found = {one.host: one for one in manifest.members}
        for one in hosts:
            is_of_the_instant(one, f"{store}#{str(found[one.device].dump).partition('#')[2]}")
        return found

    return dumped


def set_control(host: RunningHost, name: str, value: str) -> None:
    (host.mountpoint / "control" / name).write_text(value)


def read_all(member: MemberRecord) -> str | None:
    """Why; None: it did not."""
    found = member.increment
    assert found
    if found.all_read is None:
        assert 0 < found.unread < member.bytes and len(found.since) == 32
    else:
        assert (found.since, found.unread) == ("", 0)
    assert found.tracked == (found.all_read != UNTRACKED)
    return found.all_read


def test_each_member_reads_what_may_have_changed(
    host: Callable[[bool], RunningHost], fleet: Fleet, tmp_path: Path
) -> None:
    tracked, other = host(True), host(False)
    first = fleet(tracked, other)
    assert read_all(first[tracked.device]) == FIRST
    assert read_all(first[other.device]) == UNTRACKED
    for how in ("barrier", "clock"):
        second = fleet(tracked, other, how=how)
        member = second[tracked.device]
        assert read_all(member) is None and read_all(second[other.device]) == UNTRACKED
        assert member.increment and member.increment.since == first[tracked.device].dump_id
        first = second
    with open_store(str(tmp_path / "store")) as store:
        assert verify_store(store).problems == []


def test_what_was_not_read_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """In the list of members, and in the line of progress."""
    parts = [
        MemberIncrement(tracked=True, all_read=FIRST),
        MemberIncrement(tracked=True, since="1a2b3c4d" * 4, unread=3 << 20),
    ]
    members = tuple(
        MemberRecord(
            name=f"vm{i}", host="h", computer="pc", worker="w", bytes=4 << 20, increment=part
        )
        for i, part in enumerate([*parts, MemberIncrement(all_read=UNTRACKED), None])
    )
    print_manifest(
        Manifest(id="x", how="clock", one_instant=False, verdict="torn", members=members)
    )
    shown, noted = capsys.readouterr()
    assert noted == f"livedump: vm0: all of the memory was read: {FIRST}\n"
    assert shown.count("  4 MiB  no dump") == 3
    assert "vm1  incomplete  no instant  4 MiB, 3 MiB as in 1a2b3c4d  no dump" in shown
    stream = io.StringIO()
    saved = Saved(4 << 20, 4 << 20, 0, True)
    FleetLines(stream).update(
        {
            str(i): News(saved, MemberOutcome("consistent", None, None, None, part))
            for i, part in enumerate([*parts, None])
        }
    )
    assert "12 MiB of 12 MiB, 3 of 3 members, 3 MiB not read: unchanged\n" in stream.getvalue()


def test_a_host_that_was_started_again_reads_all(
    host: Callable[[bool], RunningHost], fleet: Fleet
) -> None:
    before = host(True)
    for why in (FIRST, None):
        assert read_all(fleet(before)[before.device]) == why
    before.end()
    again = host(True)
    for why in (FIRST, None):
        assert read_all(fleet(again)[again.device]) == why


def test_a_base_that_does_not_count(
    host: Callable[[bool], RunningHost],
    fleet: Fleet,
    tmp_path: Path,
) -> None:
    """The store lacks a chunk of it; then the host itself cannot count from one."""
    one = host(True)
    fleet(one)
    chunk = max((tmp_path / "store").glob("default.castr/*/*"), key=lambda c: c.stat().st_size)
    chunk.unlink()
    why = read_all(fleet(one)[one.device])
    assert why and why.endswith("since which the machine has kept track, or lacks chunks")
    set_control(one, "backend", "sigbus")
    assert read_all(fleet(one)[one.device]) == SIGBUS


def test_a_dump_to_a_folder_says_nothing_of_it(
    host: Callable[[bool], RunningHost], cluster: Callable[..., Any], tmp_path: Path
) -> None:
    one = host(True)
    client = cluster(1, FleetPlugin(one.device))
    settings = FleetSettings(str(tmp_path / "dumps"), **LONG)
    _, manifest = fleet_dump(client, settings, allow_root=bool(AS_ROOT))
    assert manifest.verdict == "consistent" and manifest.members[0].increment is None
