# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of a machine under full write load, byte for byte against a copy taken inside the pause.

LIVEDUMP_DUMPS=200 makes the long run of `make exact`; `make test` takes a smaller number, and
smaller machines.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from oracle import Reference

from livedumpfs.cli.proof import prove_dump
from livedumpfs.dump import Counters, DumpSettings, LiveDump
from livedumpfs.dumpfile import LOST, open_dump
from livedumpfs.huge import HUGE, HUGE_SIZE, Huge
from livedumpfs.machines import BUILT_IN_RISCV64, RiscvMachine, UnicornMachine
from livedumpfs.settings import REAL_BACKENDS, Format
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.transparent_pages import pages_for

MIB = 1 << 20
DUMPS = int(os.environ.get("LIVEDUMP_DUMPS", "2"))
LONG = DUMPS >= 100
RAM = (64 if LONG else 16) * MIB
HUGE_RAM = max(RAM, 32 * MIB)
EACH = 2 if LONG else 1
"""Dumps of one kind after the other; those of the next kind follow in the same machine."""
pytestmark = pytest.mark.together  # they share a machine
DEADLINE_S = 300.0
ENOUGH = 20
"""Dumps until something must have happened: on a busy computer the guest may get no turn in one."""


class Bench:
    """A machine, and dumps of it compared with the reference."""

    def __init__(self, machine: UnicornMachine | RiscvMachine, target: Path) -> None:
        self.machine = machine
        self.target = target
        self.live = LiveDump(machine)
        self.reference = Reference(machine.arena.size)
        self.pages = 0

    def dump(
        self, settings: DumpSettings, until: Callable[[Counters], object] | None = None
    ) -> Counters:
        """The sweep begins after a moment, or `until` that is so."""
        self.reference.clear()
        settings = replace(settings, force=True)  # a torn dump over a consistent one, too
        self.live.init(self.target, settings, reference=self.reference.fd)
        try:
            self.live.start()
            if until is None:
                self.live.wait(0.02)
            else:
                self._wait(until)
            self.live.sweep()
            self.live.finish(DEADLINE_S, check=False)
        finally:
            self.live.release()
        self.pages += self.machine.arena.size // PAGE_SIZE
        return self.live.counters()

    def _wait(self, until: Callable[[Counters], object]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not until(self.live.counters()):
            assert time.monotonic() < end, self.live.counters()
            time.sleep(0.002)

    def expect_exact(self, settings: DumpSettings) -> Counters:
        counters = self.dump(settings)
        assert self.live.verdict == "consistent", (self.live.failure, counters)
        with self.held():
            self._compare()
        assert counters.remaining == counters.lost == 0
        assert counters.by_fault + counters.by_sweep + counters.holes == counters.granules
        return counters

    @contextmanager
    def held(self) -> Iterator[None]:
        """The dump is made: give the comparison the cores."""
        self.machine.quiesce()
        try:
            yield
        finally:
            self.machine.resume()

    def _compare(self) -> None:
        with open_dump(self.target) as dump:
            different = self.reference.different_pages(dump)
            assert len(different) == 0, f"{len(different)} pages, first {different[:5]}"
            report = prove_dump(dump)
            assert report.verdict == "consistent" and not report.problems, report.problems
            assert report.ledger and report.ledger.ok and report.ledger.counter_ok, report.ledger
            assert report.ledger.mismatches == 0

    def close(self) -> None:
        self.live.release()
        self.machine.close()
        self.reference.close()


needs_riscv64 = pytest.mark.skipif(
    not BUILT_IN_RISCV64.exists(), reason="the guest for riscv64 is not built: make guest"
)


def make_machine(kind: str) -> UnicornMachine | RiscvMachine:
    if kind == "riscv64":
        return RiscvMachine(RAM)
    return UnicornMachine(RAM, int(kind), low_ram=RAM // 8 * 5 + PAGE_SIZE)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("1", id="1-vcpu"),
        pytest.param("2", id="2-vcpus"),
        pytest.param("riscv64", id="riscv64", marks=needs_riscv64),
    ],
)
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    machine = make_machine(request.param)
    bench = Bench(machine, tmp_path_factory.mktemp("exact") / "dump")
    try:
        machine.start()
        machine.wait_ready()
        yield bench
    finally:
        bench.close()
        bench.target.unlink(missing_ok=True)


@pytest.mark.parametrize("granule", [4096, 16384, 65536])
@pytest.mark.parametrize("arming", ["swap", "mprotect"])
@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_each_granule_arming_and_backend(
    bench: Bench, backend: str, arming: str, granule: int
) -> None:
    settings = DumpSettings(granule=granule, arming=arming, backend=backend)
    faults = dumps = 0
    while dumps < EACH or (not faults and dumps < ENOUGH):
        counters = bench.expect_exact(settings)
        assert counters.granule_size == granule
        faults += counters.faults
        dumps += 1
    assert faults > 0


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
@pytest.mark.parametrize("policy", ["block", "spill"])
@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_a_small_pool_loses_nothing(bench: Bench, backend: str, policy: str, format: str) -> None:
    settings = DumpSettings(
        format=format,
        policy=policy,
        backend=backend,
        granule=4096,
        pool=64 << 10,
        spill_limit=256 << 10,
    )
    spilled = 0
    for _ in range(ENOUGH):
        counters = bench.expect_exact(settings)
        assert counters.slots_peak <= 64
        spilled += counters.spilled
        if policy == "block" or spilled:
            break
    assert policy == "block" or spilled > 0


@pytest.mark.parametrize("compression", ["zlib", "lzo", "snappy", "none"])
def test_each_compression(bench: Bench, compression: str) -> None:
    settings = DumpSettings(format="kdump", compression=compression, threads=2, backend="uffd")
    counters = bench.expect_exact(settings)
    # What was stolen has been written by the sweep, too.
    granules = counters.steals + 1
    assert counters.bytes_written > 0
    assert counters.bytes_written < bench.machine.arena.size + granules * counters.granule_size


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_huge_pages(backend: str, huge: Huge, tmp_path: Path) -> None:
    """The guest's stores, compared as all others. `swap` is not for pages of 2 MiB: INIT knows."""
    formats: tuple[Format, ...] = ("elf", "kdump", "raw")
    faults = dumps = 0
    with pages_for(huge, HUGE_RAM), UnicornMachine(HUGE_RAM, 2, huge=huge) as machine:
        bench = Bench(machine, tmp_path / "dump")
        machine.wait_ready()
        while dumps < len(formats) * EACH or (not faults and dumps < ENOUGH):
            settings = DumpSettings(format=formats[dumps % len(formats)], backend=backend)
            counters = bench.expect_exact(settings)
            assert counters.granule_size == (HUGE_SIZE if huge == "2M" else 65536)
            assert bench.live.settings.arming == ("mprotect" if huge == "2M" else "swap")
            faults += counters.faults
            dumps += 1
        bench.close()
    assert faults > 0


TURNS = (
    "uffd", "sigsegv", "uffd", "uffd", "sigsegv", "sigsegv", "sigbus", "sigsegv", "sigbus", "uffd",
    "sigbus", "sigbus",
)  # fmt: skip
"""Each after each."""


def test_backends_take_turns(bench: Bench) -> None:
    """The view that one left is made the other's: nothing of its protection stays."""
    faults = dict.fromkeys(REAL_BACKENDS, 0)
    for _ in range(ENOUGH):
        for backend in TURNS:
            faults[backend] += bench.expect_exact(DumpSettings(backend=backend)).faults
        if all(faults.values()):
            break
    assert all(faults.values()), faults


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_under_fail_the_verdict_names_exactly_the_pages_that_differ(
    bench: Bench, backend: str
) -> None:
    """A granule is lost for good: what the target has there may be old, new or nothing. What is not
    named must be right, and what differs must be named."""
    settings = DumpSettings(policy="fail", backend=backend, granule=4096, pool=8 << 10)
    counters = bench.dump(settings, lambda now: now.lost > 0)
    assert bench.live.verdict == "torn" and counters.lost > 0
    with open_dump(bench.target) as dump:
        different = set(bench.reference.different_pages(dump).tolist())
        named = {page for first, end in dump.pfn_ranges(LOST) for page in range(first, end)}
        assert dump.verdict == "torn"
        assert len(named) == counters.lost
        assert different <= named
        # A granule is lost because it was written at once: nearly all of them do differ.
        assert len(different) > len(named) // 2
        with pytest.raises(OSError, match="lost"):
            dump.read_arena(min(named) * PAGE_SIZE, 1)


@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_sweep_held_back_makes_steals_and_throttle_works(bench: Bench, backend: str) -> None:
    """All memory, of which the guest writes what it likes, in a second; what is stolen is the
    sweep's work for nothing, and counts."""
    steals = 0
    for _ in range(ENOUGH):
        counters = bench.expect_exact(DumpSettings(backend=backend, granule=65536, sweep_rate=RAM))
        swept = counters.by_sweep * counters.granule_size
        took_s = (counters.drained_ns - counters.sweep_start_ns) / 1e9
        assert took_s >= 0.5 * swept / RAM, counters
        steals += counters.steals
        if steals:
            break
    assert steals > 0


@pytest.mark.timeout(3600 if LONG else 900)
@pytest.mark.parametrize("backend", REAL_BACKENDS)
def test_many_dumps_in_a_row(backend: str, tmp_path: Path) -> None:
    machine = UnicornMachine((256 if LONG else 64) * MIB, 2)
    bench = Bench(machine, tmp_path / "dump")
    faults = 0
    try:
        machine.start()
        machine.wait_ready()
        for _ in range(DUMPS):
            faults += bench.expect_exact(DumpSettings(backend=backend)).faults
    finally:
        bench.close()
    print(f"{backend}: {DUMPS} dumps, {bench.pages} pages compared, {faults} faults, 0 differences")
    assert faults > DUMPS
