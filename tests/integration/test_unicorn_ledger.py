# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn machines: the ledger of the built-in guest."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import pytest

from livedumpfs.machines import UnicornMachine, boot, verify_ledger
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.unicorn_guests import DEADLINE, needs_ledger, wait_for, word

pytestmark = pytest.mark.usefixtures("no_vcpu_is_left")

STOPS = int(os.environ.get("LIVEDUMP_STOPS", "25"))
"""Copies of the held ledger; `make exact` takes 1000."""


LEDGER_RAM = 16 << 20


def copy_of(machine: UnicornMachine) -> Callable[[int, int], bytes]:
    """A reader of a copy of all memory, made now."""
    data = [(r.start, machine.arena.read(r.arena_offset, r.size)) for r in machine.memory_map]

    def read(address: int, length: int) -> bytes:
        for start, memory in data:
            if start <= address and address + length <= start + len(memory):
                return memory[address - start : address - start + length]
        raise ValueError(f"{address:#x} is not RAM")

    return read


@needs_ledger
@pytest.mark.timeout(900)
@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_copies_made_while_held_are_exact(vcpus: int) -> None:
    rng = random.Random(vcpus)
    in_flight = 0
    with UnicornMachine(LEDGER_RAM, vcpus, low_ram=6 << 20) as machine:
        machine.wait_ready(DEADLINE)
        transfers = 0
        for _ in range(STOPS):
            wait_for(
                lambda seen=transfers: sum(r["r15"] for r in machine.registers()) > seen, machine
            )
            time.sleep(rng.random() / 500)
            machine.quiesce(DEADLINE)
            registers, read = machine.registers(), copy_of(machine)
            machine.resume()
            report = verify_ledger(read, LEDGER_RAM, registers)
            assert report.ok and report.counter_ok, report.message
            assert report.found + report.in_flight == report.expected
            assert report.mismatches == 0 and report.vcpus == vcpus
            assert report.transfers > transfers
            transfers = report.transfers
            in_flight += report.in_flight != 0
        # The vCPUs are held in the middle of transfers too, or the proof would be worth little.
        assert in_flight > 0


@needs_ledger
@pytest.mark.parametrize("vcpus", [1, 2])
def test_copies_made_while_it_runs_are_found_out(vcpus: int) -> None:
    with UnicornMachine(LEDGER_RAM, vcpus) as machine:
        machine.wait_ready(DEADLINE)
        for _ in range(20):
            data = machine.arena.read(0, LEDGER_RAM // 2)
            # Copying takes time, in which the guest writes: here at least that of 100 transfers.
            then = [r["r15"] for r in machine.registers()]
            wait_for(
                lambda then=then: all(
                    r["r15"] > t + 100 for r, t in zip(machine.registers(), then, strict=True)
                ),
                machine,
            )
            data += machine.arena.read(LEDGER_RAM // 2, LEDGER_RAM // 2)
            assert not verify_ledger(lambda a, n, d=data: d[a : a + n], LEDGER_RAM).ok


def held_copy(machine: UnicornMachine) -> bytearray:
    machine.quiesce(DEADLINE)
    try:
        return bytearray(machine.arena.read(0, LEDGER_RAM))
    finally:
        machine.resume()


@needs_ledger
def test_a_few_pages_from_another_instant_are_found_out() -> None:
    rng = random.Random(5)
    with UnicornMachine(LEDGER_RAM, 2) as machine:
        machine.wait_ready(DEADLINE)
        for stale in (1, 1, 1, 2, 3, 10):
            old, pages = held_copy(machine), []
            end = time.monotonic() + DEADLINE
            while len(pages) < stale:
                assert time.monotonic() < end, machine.status()
                time.sleep(0.02)
                new = held_copy(machine)
                pages = [
                    at
                    for at in range(2 << 20, LEDGER_RAM, PAGE_SIZE)
                    if old[at : at + PAGE_SIZE] != new[at : at + PAGE_SIZE]
                ]
            report = verify_ledger(lambda a, n, m=new: bytes(m[a : a + n]), LEDGER_RAM)
            assert report.ok, report.message
            for at in rng.sample(pages, stale):
                new[at : at + PAGE_SIZE] = old[at : at + PAGE_SIZE]
            assert not verify_ledger(lambda a, n, m=new: bytes(m[a : a + n]), LEDGER_RAM).ok


@needs_ledger
def test_the_guest_itself_sees_an_instruction_that_ran_twice() -> None:
    """What the counters are for: without this the tests above could not fail."""
    with UnicornMachine(LEDGER_RAM) as machine:
        machine.wait_ready(DEADLINE)
        params = boot.BootParams.unpack(machine.read_physical(boot.PARAMS, boot.SIZE))
        transfers, mismatches = params.ledger + 48, params.ledger + 56
        machine.quiesce()
        count = word(machine, transfers)
        machine.arena.live[transfers : transfers + 8] = memoryview(
            (count + 1).to_bytes(8, "little")
        )
        machine.resume()
        wait_for(lambda: word(machine, mismatches) == 1, machine)
        machine.quiesce()
        report = verify_ledger(machine.read_physical, LEDGER_RAM, machine.registers())
        assert not report.ok and not report.counter_ok
        machine.resume()


@needs_ledger
def test_share_and_rate() -> None:
    with UnicornMachine(64 << 20, 2, dirty_share=0.1, rate=2000) as machine:
        machine.wait_ready(DEADLINE)
        assert machine.arena.resident() < 12 << 20
        begin, first = time.monotonic(), sum(r["r15"] for r in machine.registers())
        wait_for(lambda: sum(r["r15"] for r in machine.registers()) > first + 100, machine)
        machine.quiesce()
        done = sum(r["r15"] for r in machine.registers()) - first
        elapsed = time.monotonic() - begin
        report = verify_ledger(machine.read_physical, 64 << 20, machine.registers())
        machine.resume()
        # Two transfers a tick and vCPU: never more, however the test is scheduled.
        assert done <= 2 * 2 * (elapsed * 1000 + 3)
        assert report.ok, report.message
        assert machine.metadata()["dirty_share"] == 0.1


@needs_ledger
def test_writes_all_of_its_share() -> None:
    """Without a rate the guest is the load of every other test: it must come everywhere soon."""
    with UnicornMachine(LEDGER_RAM, 2) as machine:
        machine.wait_ready(DEADLINE)
        start = machine.arena.read(0, LEDGER_RAM)

        def untouched() -> int:
            now = machine.arena.read(0, LEDGER_RAM)
            pages = range(2 << 20, LEDGER_RAM, PAGE_SIZE)
            return sum(now[p : p + 32] == start[p : p + 32] for p in pages)

        wait_for(lambda: untouched() == 0, machine)


def accounts_while_filling(size: int) -> set[int]:
    """Numbers of accounts in copies taken before the guest's first transfer; each copy must be
    right, or say that there is no ledger yet."""
    seen = set()
    with UnicornMachine(size, 2) as machine:
        while len(seen) < 3:
            machine.quiesce(DEADLINE)
            report = verify_ledger(machine.read_physical, size)
            machine.resume()
            assert report.ok or report.message == "no ledger: the guest had not begun", report
            if report.transfers:
                break
            seen.add(report.accounts)
    return seen


@needs_ledger
def test_verify_while_accounts_are_filled() -> None:
    """On busy cores a small guest may be full before it is looked at once: then a larger one."""
    assert any(len(accounts_while_filling(size << 20)) > 1 for size in (64, 128, 256, 512, 1024))
