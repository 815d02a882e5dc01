# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn machines: holding vCPUs exactly."""

from __future__ import annotations

import errno
import threading
import time

import pytest

from livedumpfs.core.capi import lib
from livedumpfs.errors import MachineError
from livedumpfs.machines import UnicornMachine, boot
from tests.fixtures.unicorn_guests import COUNT, DEADLINE, RAM, MakeGuest, needs_gcc, wait_for, word

pytestmark = pytest.mark.usefixtures("no_vcpu_is_left")


@needs_gcc
def test_registers_and_memory_stand_still_together(guest: MakeGuest) -> None:
    with UnicornMachine(RAM, guest=guest(COUNT)) as machine:
        wait_for(lambda: word(machine, 0x200000), machine)
        last = 0
        for _ in range(300):
            machine.quiesce()
            count, (registers,) = word(machine, 0x200000), machine.registers()
            again = word(machine, 0x200000)
            assert machine.status()[0].parked
            machine.resume()
            # Held at the head of the loop: exactly equal, not one apart.
            assert (count, again) == (registers["r15"], count)
            assert registers["rip"] == 0x100007
            last = count
        wait_for(lambda: word(machine, 0x200000) > last, machine)


@needs_gcc
def test_quiesce_nests(guest: MakeGuest) -> None:
    with UnicornMachine(RAM, guest=guest(COUNT)) as machine:
        machine.quiesce()
        machine.quiesce()
        machine.resume()
        count = word(machine, 0x200000)
        time.sleep(0.02)
        assert word(machine, 0x200000) == count
        machine.resume()
        wait_for(lambda: word(machine, 0x200000) > count, machine)
        with pytest.raises(MachineError) as caught:
            machine.resume()
        assert caught.value.errno == errno.EINVAL


@needs_gcc
@pytest.mark.parametrize(
    ("name", "body", "states"),
    [
        ("itself", "1: jmp 1b", {"running"}),
        (
            "one long string store",
            "cld; 1: mov $0x200000,%edi; mov $500<<20,%rcx; rep stosb; jmp 1b",
            {"running"},
        ),
        ("idle", "sti; 1: hlt; jmp 1b", {"running", "idle"}),
        ("halted", "cli; hlt", {"halted"}),
        ("crashed", "ud2", {"failed"}),
    ],
)
def test_every_kind_of_vcpu_can_be_held(
    guest: MakeGuest, name: str, body: str, states: set[str]
) -> None:
    size = 512 << 20 if "string" in name else RAM
    with UnicornMachine(size, guest=guest(body)) as machine:
        wait_for(lambda: machine.status()[0].state in states, machine)
        for _ in range(20):
            machine.quiesce()
            first = machine.registers()
            time.sleep(0.0005)
            assert machine.registers() == first
            assert machine.status()[0].state in states
            machine.resume()


@needs_gcc
def test_capture_keeps_the_registers_of_the_pause(guest: MakeGuest) -> None:
    with UnicornMachine(RAM, 2, guest=guest(COUNT.replace("inc %r15", "inc %r14"))) as machine:
        with pytest.raises(MachineError) as caught:
            machine.snapshot_registers()
        assert caught.value.errno == errno.ENODATA
        ops = machine.quiesce_ops()
        assert ops.quiesce(ops.ctx, time.monotonic_ns() + int(DEADLINE * 1e9)) == 0
        ops.capture(ops.ctx)
        live = machine.registers()
        ops.resume(ops.ctx)
        wait_for(lambda: machine.registers()[0]["r14"] > live[0]["r14"], machine)
        assert machine.snapshot_registers() == live
        assert {r["rdi"] for r in live} == {boot.address(0), boot.address(1)}


@needs_gcc
def test_quiesce_gives_up_at_its_deadline_and_the_vcpu_runs_on(guest: MakeGuest) -> None:
    # A block of code that takes its time, and a deadline that has passed already. The vCPU may
    # still park in that very moment, so it takes more than one attempt.
    body = COUNT.replace("inc %r15", "fldpi\n.rept 400\nfsin\n.endr\n")
    with UnicornMachine(RAM, guest=guest(body)) as machine:
        wait_for(lambda: word(machine, 0x200000), machine)

        def too_late() -> bool:
            rc = lib.ldfs_machine_quiesce(machine._handle, 1)
            if rc == 0:
                machine.resume()
            return bool(rc == -errno.ETIMEDOUT)

        wait_for(too_late, machine)
        count = word(machine, 0x200000)
        wait_for(lambda: word(machine, 0x200000) > count, machine)
        assert not machine.status()[0].parked


@needs_gcc
def test_many_threads_hold_at_once(guest: MakeGuest) -> None:
    wrong: list[tuple[int, int, int]] = []

    def hold(machine: UnicornMachine) -> None:
        for _ in range(100):
            machine.quiesce(DEADLINE)
            before = word(machine, 0x200000)
            r15 = machine.registers(DEADLINE)[0]["r15"]
            after = word(machine, 0x200000)
            machine.resume()
            if not before == r15 == after:
                wrong.append((before, r15, after))

    with UnicornMachine(RAM, guest=guest(COUNT)) as machine:
        holders = [threading.Thread(target=hold, args=(machine,)) for _ in range(4)]
        for h in holders:
            h.start()
        for h in holders:
            h.join(300)
            assert not h.is_alive()
        assert not wrong
        count = word(machine, 0x200000)
        wait_for(lambda: word(machine, 0x200000) > count, machine)
