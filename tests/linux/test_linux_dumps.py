# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of Linux under load, byte for byte against a copy taken inside the pause, with the guest's
own checksums and its disk.

LIVEDUMP_LINUX_DUMPS=50 and LIVEDUMP_LINUX_SECONDS=3600 make the long run of `make test-linux`.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from oracle import Reference

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump
from livedumpfs.formats import Registers
from livedumpfs.formats.processors import RISCV64
from tests.linux.conftest import BOOT_S, LOAD, LinuxGuest

DUMPS = int(os.environ.get("LIVEDUMP_LINUX_DUMPS", "3"))
LONG = DUMPS >= 20
SECONDS = int(os.environ.get("LIVEDUMP_LINUX_SECONDS", "0"))
"""Of the run with a dump every 10 s."""
RAM = "256MiB" if LONG else "128MiB"
pytestmark = pytest.mark.together  # they share a machine
SETTINGS = (
    DumpSettings(format="elf"),
    DumpSettings(format="raw", backend="sigbus", granule=4096),
    DumpSettings(format="kdump", arming="mprotect"),
    DumpSettings(format="elf", backend="uffd"),
)


@pytest.fixture(scope="module")
def loaded(linux: Callable[..., LinuxGuest]) -> LinuxGuest:
    guest = linux(RAM, f"loglevel=8 load={','.join(LOAD)},tasks")
    wait_for_all(guest)
    return guest


def wait_for_all(guest: LinuxGuest) -> dict[str, int]:
    """Until each load has done something more than at the call."""
    before, end = guest.right(), time.monotonic() + BOOT_S
    while True:
        now = guest.right()
        if all(now.get(name, 0) > before.get(name, 0) for name in LOAD):
            return now
        assert guest.machine.state == "running", guest.machine.status()
        assert time.monotonic() < end, f"{before}, and then {now}"
        time.sleep(0.1)


def expect_registers(found: Sequence[Registers], snapshot: Sequence[Registers]) -> None:
    """Those of NT_PRSTATUS, or all of them."""
    assert len(found) == len(snapshot) == 1
    assert set(RISCV64.registers) <= set(found[0])
    assert found[0] == {name: snapshot[0][name] for name in found[0]}


class Dumps:
    """Dumps of a guest, each compared with the copy that was made in its pause."""

    def __init__(self, guest: LinuxGuest, target: Path, reference: Reference) -> None:
        self.guest, self.target, self.reference = guest, target, reference
        self.live = LiveDump(guest.machine)
        self.number = self.faults = 0
        self.held_ms: list[float] = []

    def take(self) -> None:
        """One more, of the next kind. The sweep begins after a moment."""
        self.target.unlink(missing_ok=True)
        self.reference.clear()
        settings = SETTINGS[self.number % len(SETTINGS)]
        self.live.init(self.target, settings, reference=self.reference.fd)
        try:
            self.live.start()
            self.live.wait(0.05)
            self.live.sweep()
            assert self.live.finish(BOOT_S) == "consistent"
            counters = self.live.counters()
        finally:
            self.live.release()
        self._compare()
        self.guest.right()
        self.faults += counters.faults
        self.held_ms.append((counters.quiesce_ns + counters.resume_ns) / 1e6)
        self.number += 1

    def _compare(self) -> None:
        machine = self.guest.machine
        with open_dump(self.target) as dump:
            different = self.reference.different_pages(dump)
            expect_registers(dump.registers, machine.snapshot_registers())
        assert not len(different), f"dump {self.number}: {len(different)}, {different[:5]}"

    def report(self, right: dict[str, int]) -> str:
        """How long it was held does not count the copy, which is made between."""
        held = f"{statistics.median(self.held_ms):.3f} ms (median), {max(self.held_ms):.3f} (most)"
        return f"{self.number} dumps, {self.faults} faults, held and let go in {held}; {right}"


@pytest.fixture(scope="module")
def dumps(loaded: LinuxGuest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dumps]:
    with Reference(loaded.machine.arena.size) as reference:
        yield Dumps(loaded, tmp_path_factory.mktemp("dumps") / "dump", reference)


def test_dumps_under_load_are_exact(dumps: Dumps) -> None:
    while dumps.number < DUMPS:
        dumps.take()
    assert dumps.faults > 0
    print(dumps.report(wait_for_all(dumps.guest)))


def resident_kib() -> int:
    found = re.search(r"^VmRSS:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


@pytest.mark.skipif(not SECONDS, reason="`make test-linux`")
@pytest.mark.timeout(SECONDS + 1800)
def test_a_dump_every_ten_seconds(dumps: Dumps) -> None:
    """No page is wrong, no tick is lost, and the process does not grow."""
    begin, settled, count = time.monotonic(), 0, 0
    while time.monotonic() - begin < SECONDS:
        dumps.take()
        count += 1
        print(f"{time.monotonic() - begin:.0f} s: {resident_kib()} KiB; {dumps.guest.right()}")
        settled = settled or (resident_kib() if time.monotonic() - begin > SECONDS / 5 else 0)
        time.sleep(max(0.0, begin + 10 * count - time.monotonic()))
    assert resident_kib() < settled + (48 << 10), f"{settled} KiB, at the end {resident_kib()}"
    print(dumps.report(wait_for_all(dumps.guest)))


def test_its_disk_is_whole_afterwards(loaded: LinuxGuest) -> None:
    wait_for_all(loaded)
    loaded.machine.type(b"\nkillall stores forks files ticks\n")
    loaded.switch_off()
    status = loaded.machine.board_status()
    assert status.disk_writes and status.disk_reads and not status.disk_errors
    loaded.machine.close()
    loaded.check_disk()
