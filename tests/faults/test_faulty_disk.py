# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that fails, stalls or fills up in the middle of a dump: as a file, and as a loop device
over it."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aftermath import (
    DEADLINE_S,
    comes_back,
    expect_free,
    expect_host_free,
    host_unharmed,
    unharmed,
    wait_for,
)
from faulty_disk import FaultyDisk, faulty_disk

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.abi import State, Verdict
from livedumpfs.client import Client, InitOptions
from livedumpfs.dump import DumpSettings
from livedumpfs.dumpfile import LOST, SAVED
from livedumpfs.errors import LivedumpError, StateError, TargetError
from livedumpfs.units import PAGE_SIZE

MIB = 1 << 20
SIZE = 16 * MIB
GRANULE = 16384
MIDDLE = 5 * MIB

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="the disk needs /dev/fuse"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultyDisk]:
    with faulty_disk(tmp_path / "faulty", 32 * MIB) as made:
        yield made


@pytest.fixture
def live() -> Iterator[LiveDump]:
    with Arena(SIZE) as arena, LiveDump(arena) as made:
        arena.live[:] = 5
        yield made


def write_on(live: LiveDump, value: int = 6) -> None:
    """A store to every page: through a pool that the target must empty, this must not hang."""
    live.machine.arena.live[::PAGE_SIZE] = value


def begin(live: LiveDump, target: Path | str, **how: Any) -> None:
    live.machine.arena.live[:] = 5
    live.init(target, DumpSettings(granule=GRANULE, pool=MIB, force=True, **how))
    live.start()


def expect_honest(target: Path | str) -> int:
    """What the dump says it has is right; how much that is, in granules."""
    with open_dump(target) as dump:
        assert dump.verdict != "consistent"
        assert dump.verdict == "incomplete" or dump.pfn_ranges(LOST)
        saved = (dump.entries["state"] == SAVED).nonzero()[0].tolist()
        for granule in saved:
            assert dump.read_arena(granule * GRANULE, GRANULE).count(5) == GRANULE, granule
        return len(saved)


@pytest.mark.parametrize("kind", ["eio", "enospc", "short"])
@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_writes_fail_from_the_middle_on(
    disk: FaultyDisk, live: LiveDump, kind: str, format: str
) -> None:
    how = {"compression": "none"} if format == "kdump" else {}
    with unharmed(live):
        begin(live, disk.file, format=format, **how)
        disk.fault(kind, MIDDLE)
        write_on(live)
        live.sweep()
        # A few errors are tried again elsewhere or lose their pages; after more it is given up.
        assert live.finish(DEADLINE_S, check=False) in ("torn", "incomplete")
        assert disk.hits() > 0
        code = errno.ENOSPC if kind == "enospc" else errno.EIO
        assert live.counters().failure.error == code
        assert live.counters().lost > 0 and str(disk.file) in str(live.failure)
        write_on(live)
        live.release()
        disk.fault("none")
        # Data before the middle is there; where the table lies behind it, nothing says so.
        expect_honest(disk.file)


def test_one_write_that_fails_loses_what_it_held_and_no_more(
    disk: FaultyDisk, live: LiveDump
) -> None:
    with unharmed(live):
        begin(live, disk.file)
        disk.fault("once", MIDDLE)
        live.sweep()
        live.finish(DEADLINE_S)
        assert disk.hits() == 1
        lost = live.counters().lost
        live.release()
        with open_dump(disk.file) as dump:
            assert (dump.entries["state"] == LOST).sum() == lost
            # A run that failed is written again, granule by granule.
            assert (dump.verdict, lost) == ("consistent", 0), dump
            for granule in (dump.entries["state"] == SAVED).nonzero()[0].tolist():
                assert dump.read_arena(granule * GRANULE, GRANULE).count(5) == GRANULE


def test_a_target_that_opens_for_direct_writes_but_takes_none(
    disk: FaultyDisk, live: LiveDump
) -> None:
    with unharmed(live):
        begin(live, disk.file)
        disk.fault("direct")
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        assert disk.hits() == 1, "the others go through the cache"
        live.release()
        with open_dump(disk.file) as dump:
            assert (dump.entries["state"] == SAVED).all()
            assert dump.read_arena(0, SIZE).count(5) == SIZE


def test_a_sync_that_fails_is_never_consistent(disk: FaultyDisk, live: LiveDump) -> None:
    with unharmed(live):
        begin(live, disk.file)
        disk.fault("sync")
        write_on(live)
        live.sweep()
        assert live.finish(DEADLINE_S, check=False) == "incomplete"
        assert disk.hits() > 0 and live.counters().not_durable
        assert live.counters().lost == 0
        live.release()
        disk.fault("none")
        assert expect_honest(disk.file) == SIZE // GRANULE


def test_a_sync_that_fails_at_init_is_told_there(disk: FaultyDisk, live: LiveDump) -> None:
    with unharmed(live):
        disk.fault("sync")
        with pytest.raises(TargetError) as caught:
            live.init(disk.file, DumpSettings(force=True))
        assert caught.value.errno == errno.EIO and disk.hits() > 0


def test_a_slow_disk_costs_time_and_nothing_else(disk: FaultyDisk, live: LiveDump) -> None:
    with unharmed(live):
        begin(live, disk.file)
        disk.fault("slow")
        live.sweep()
        write_on(live)
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        assert disk.hits() > 0
        live.release()
        with open_dump(disk.file) as dump:
            assert dump.verdict == "consistent"
            assert dump.read_arena(0, SIZE).count(5) == SIZE


@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_a_disk_that_hangs_holds_writers_for_the_stall_deadline_only(
    disk: FaultyDisk, live: LiveDump, format: str
) -> None:
    """Then their pages are lost, and the machine runs on; RELEASE does not wait either."""
    with unharmed(live):
        begin(live, disk.file, stall_deadline=0.3, format=format)
        disk.fault("hang")
        live.sweep()
        write_on(live)
        counters = live.counters()
        assert disk.hits() > 0 and counters.gave_up and counters.lost > 0
        assert counters.failure.error == errno.ETIMEDOUT
        live.release()
        expect_free(live.machine.arena)
        with pytest.raises(StateError, match="still hangs") as caught:
            live.init(None)
        assert caught.value.errno == errno.EBUSY
        disk.fault("none")

        wait_for(lambda: comes_back(live))
        expect_honest(disk.file)


@pytest.fixture
def loop(disk: FaultyDisk) -> Iterator[str]:
    """A loop device over the disk."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    made = subprocess.run(
        ["losetup", "--find", "--show", str(disk.file)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    device = made.stdout.strip()
    try:
        yield device
    finally:
        disk.fault("none")
        subprocess.run(["losetup", "-d", device], check=False, timeout=300, capture_output=True)
        wait_for(lambda: not is_attached(device, disk), lambda: f"{device} is still attached")


def is_attached(device: str, disk: FaultyDisk) -> bool:
    command = ["losetup", "-j", str(disk.file)]
    listing = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return f"{device}:" in listing.stdout


@contextlib.contextmanager
def faulted(disk: FaultyDisk, kind: str, offset: int = 0) -> Iterator[None]:
    """A host that a hung disk holds would hold up the end of a test that fails."""
    disk.fault(kind, offset)
    try:
        yield
    finally:
        disk.fault("none")


@pytest.mark.parametrize("kinds", ["eio enospc sync slow", "hang"])
def test_a_device_that_fails_under_a_hosts_dump(
    loop: str, disk: FaultyDisk, run_host: Callable[..., Any], kinds: str
) -> None:
    """The client gets its answers in time, whatever the device does; each is the next dump of the
    one before it, too."""
    host = run_host()
    with host_unharmed(host):
        for kind in kinds.split():
            dump_over(host, loop, disk, kind)
            expect_host_free(host)


def dump_over(host: Any, loop: str, disk: FaultyDisk, kind: str) -> None:
    deadline = 0.5 if kind == "hang" else 0
    with Client(host.device) as client:
        client.init(loop, InitOptions(stall_deadline=deadline, force=True))
        client.start()
        with faulted(disk, kind, 12 * MIB if kind == "slow" else MIDDLE):
            client.sweep()
            wait_for(disk.hits, client.status)
            host.runs_on()
            if kind != "hang":
                expect_end(client, kind)
            client.release()
            assert client.status().state is State.UNINIT
            host.runs_on()


def expect_end(client: Client, kind: str) -> None:
    """A loop device says EIO for most that its file says."""
    status = client.finish(DEADLINE_S, check=False)
    if kind == "slow":
        assert status.verdict is Verdict.CONSISTENT and not status.failure, status
        return
    assert status.verdict in (Verdict.INCOMPLETE, Verdict.TORN), status
    assert status.failure and status.failure.errno in (errno.EIO, errno.ENOSPC), status


@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_an_init_whose_disk_hangs_fails_in_time(
    disk: FaultyDisk, live: LiveDump, format: str
) -> None:
    """Nothing is armed, RELEASE answers, and INIT says why it cannot until the disk is back."""
    with unharmed(live):
        disk.fault("hang")
        settings = DumpSettings(format=format, init_deadline=0.3, force=True)
        with pytest.raises(TargetError, match=r"disk.*init_deadline") as caught:
            live.init(disk.file, settings)
        assert caught.value.errno == errno.ETIMEDOUT
        wait_for(disk.hits)
        live.release()
        expect_free(live.machine.arena)
        with pytest.raises(StateError, match="still hangs") as caught_again:
            live.init(None)
        assert caught_again.value.errno == errno.EBUSY
        disk.fault("none")
        wait_for(lambda: comes_back(live))


def test_release_answers_while_an_init_waits_for_its_disk(disk: FaultyDisk, live: LiveDump) -> None:
    """That INIT still works when the disk comes back before its deadline."""
    with unharmed(live):
        disk.fault("hang")
        settings = DumpSettings(init_deadline=DEADLINE_S, force=True)
        init = threading.Thread(target=live.init, args=(disk.file, settings))
        init.start()
        wait_for(disk.hits)
        live.release()
        assert live.state.value == "uninit" and init.is_alive()
        disk.fault("none")
        init.join(DEADLINE_S)
        assert live.state.value == "init"


@pytest.mark.parametrize("kind", ["hang", "mute"])
def test_a_device_that_hangs_at_a_hosts_init(
    loop: str, disk: FaultyDisk, run_host: Callable[..., Any], kind: str
) -> None:
    """Writes that hang, or reads: what lies there is looked at first. A client that lives has its
    answer while the device still hangs."""
    host = run_host()
    with host_unharmed(host), Client(host.device) as client, faulted(disk, kind):
        seconds, late = 0.5, ""
        while not (late and disk.hits()):
            host.write("control/init_deadline", str(seconds))
            with pytest.raises(LivedumpError) as caught:
                client.init(loop)
            if caught.value.errno == errno.ETIMEDOUT:
                late = str(caught.value)
                seconds *= 2  # a busy machine may not even have opened it in so short a time
            else:
                assert caught.value.errno == errno.EBUSY, caught.value
        assert "init_deadline" in late
        client.release()
        host.runs_on()
        with pytest.raises(LivedumpError, match="still hangs") as busy:
            client.init(loop)
        assert busy.value.errno == errno.EBUSY
        host.write("control/init_deadline", str(DEADLINE_S))
