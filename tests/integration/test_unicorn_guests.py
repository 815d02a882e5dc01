# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn machines: guests whose code changes, that crash, halt and print, and a user's own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from livedumpfs.core.capi import lib
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.machines import UnicornMachine, boot
from tests.fixtures.program_files import program_file
from tests.fixtures.unicorn_guests import (
    COUNT,
    DEADLINE,
    RAM,
    MakeGuest,
    needs_gcc,
    needs_ledger,
    wait_for,
    word,
)

pytestmark = pytest.mark.usefixtures("no_vcpu_is_left")


# ---------------------------------------------------------------------- code that changes


@needs_gcc
def test_changed_code_is_never_run_as_it_was(guest: MakeGuest) -> None:
    with UnicornMachine(RAM, guest=guest(program_file(__file__, "changing_code.S"))) as machine:
        wait_for(lambda: machine.status()[0].state == "halted", machine)
        (registers,) = machine.registers()
        assert registers["r15"] == 10000
        assert [registers[name] for name in ("r12", "r13", "r14")] == [0, 0, 0]


# ---------------------------------------------------------------------- guests that end


@needs_gcc
@pytest.mark.parametrize(
    ("body", "pc", "reason"),
    [
        ("nop; mov 0x7ffffff0, %eax", 0x100001, "read of 0x7ffffff0, where there is no RAM"),
        ("nop; mov %eax, 0x7ffffff0", 0x100001, "write to 0x7ffffff0, where there is no RAM"),
        ("mov $0x5000000000, %rax; jmp *%rax", 0x5000000000, "jump to 0x5000000000, where"),
        ("xor %ecx, %ecx; nop; div %ecx", 0x100003, "CPU exception 0 (divide error)"),
        ("nop; ud2", 0x100001, "invalid instruction"),
        ("nop; int3", 0x100002, "CPU exception 3 (breakpoint)"),
        ("nop; int $0x80", 0x100003, "CPU exception 128 (interrupt)"),
    ],
)
def test_crash(guest: MakeGuest, body: str, pc: int, reason: str) -> None:
    with UnicornMachine(RAM, 2, guest=guest(body)) as machine:
        wait_for(lambda: all(s.state == "failed" for s in machine.status()), machine)
        for status in machine.status():
            assert status.pc == pc, str(status)
            assert reason in status.reason.lower() or reason in status.reason
        assert machine.state == "failed"
        machine.quiesce()
        assert machine.registers()[0]["rip"] == pc
        machine.resume()


@needs_gcc
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        # Unicorn writes what lies across two pages from its last byte on.
        ("mov %rax, 0x5ffffc", "write to 0x600003"),
        ("mov 0x5ffffc, %rax", "read of 0x600000"),
        ("incq 0x600000", "read of 0x600000"),
        ("mov $0xfffffff8, %eax; mov %rax, (%rax)", "write to 0xfffffff8"),
        ("mov $0x100200000, %rax; mov %rax, -4(%rax)", "write to 0x100200003"),
        ("mov $0x5ffffe, %eax; movw $0x9090, (%rax); jmp *%rax", "jump to 0x600000"),
    ],
)
def test_every_hole_ends_where_ram_begins(guest: MakeGuest, body: str, reason: str) -> None:
    with UnicornMachine(RAM, guest=guest(f"nop; {body}"), low_ram=6 << 20) as machine:
        wait_for(lambda: machine.state == "failed", machine)
        assert machine.status()[0].reason == f"{reason}, where there is no RAM"


@needs_gcc
def test_one_vcpu_crashes_and_the_other_runs_on(guest: MakeGuest) -> None:
    body = f"cmpl $0, 12(%rdi); je 2f; ud2\n2:{COUNT}"
    with UnicornMachine(RAM, 2, guest=guest(body)) as machine:
        wait_for(lambda: machine.status()[1].state == "failed", machine)
        assert machine.state == "failed"
        machine.quiesce()
        count = word(machine, 0x200000)
        assert count == machine.registers()[0]["r15"]
        machine.resume()
        wait_for(lambda: word(machine, 0x200000) > count, machine)
        assert machine.status()[0].state == "running"


@needs_gcc
def test_hlt_with_interrupts_off_is_for_good(guest: MakeGuest) -> None:
    with UnicornMachine(
        RAM, guest=guest("mov $7, %ebx; cli; hlt; mov $8, %ebx; 1: jmp 1b")
    ) as machine:
        wait_for(lambda: machine.status()[0].state == "halted", machine)
        assert machine.registers()[0]["rbx"] == 7
        assert machine.status()[0].pc == machine.registers()[0]["rip"] == 0x100007
        assert machine.state == "halted"


@needs_gcc
def test_hlt_with_interrupts_on_goes_on_at_ticks(guest: MakeGuest) -> None:
    body = "sti\n1: incq 0x200000\nhlt\njmp 1b"
    begin = time.monotonic_ns() // 10**6
    with UnicornMachine(RAM, guest=guest(body)) as machine:
        wait_for(lambda: word(machine, 0x200000) > 20, machine)
        # At most one each tick, however slow this test is.
        machine.quiesce()
        count = word(machine, 0x200000)
        elapsed = time.monotonic_ns() // 10**6 - begin
        time.sleep(0.01)
        assert word(machine, 0x200000) == count
        machine.resume()
        assert count <= elapsed + 25
        wait_for(lambda: word(machine, 0x200000) > count, machine)


# ---------------------------------------------------------------------- console


@needs_gcc
def test_console_keeps_the_newest_bytes(guest: MakeGuest) -> None:
    with UnicornMachine(RAM, guest=guest(program_file(__file__, "alphabet.S"))) as machine:
        wait_for(lambda: machine.status()[0].state == "halted", machine)
        text = machine.console()
        whole = b"".join(
            b"abcdefghijklmnopqrstuvwxyz\n"[i % 27 : i % 27 + 1] for i in range(200000 * 27 // 26)
        )
        assert text.endswith(b"!")
        assert lib.LDFS_CONSOLE_SIZE <= len(text) <= lib.LDFS_CONSOLE_SIZE + 255
        assert whole[: -(len(whole) % 27)].endswith(text[: text.rindex(b"\n") + 1])
        assert machine.registers()[0]["rbx"] & 0xFF == 0x60


@needs_gcc
def test_ports_that_are_not_there_do_nothing(guest: MakeGuest) -> None:
    """Any value, of each size, to all 65536 of them: two take a byte each time, the console's."""
    with UnicornMachine(RAM, guest=guest(program_file(__file__, "every_port.S"))) as machine:
        wait_for(lambda: machine.status()[0].state == "halted", machine)
        assert word(machine, 0x200000) == 1
        assert len(machine.console()) == 2 * 3


@needs_ledger
def test_lines_of_two_vcpus_do_not_mix() -> None:
    with UnicornMachine(RAM, 2) as machine:
        machine.wait_ready(DEADLINE)
        wait_for(lambda: machine.console().count(b" ready\n") == 2, machine)
        lines = set(machine.console().decode().splitlines())
        assert "livedumpfs ledger guest: vCPU 0 of 2, 8 MiB RAM" in lines
        assert "livedumpfs ledger guest: vCPU 1 of 2, 8 MiB RAM" in lines


# ---------------------------------------------------------------------- guests of the user's own


@needs_gcc
def test_a_guest_of_its_own_gets_parameters_stack_and_high_memory(guest: MakeGuest) -> None:
    with UnicornMachine(
        RAM, 4, guest=guest(program_file(__file__, "high_memory.S")), low_ram=6 << 20
    ) as machine:
        wait_for(lambda: machine.state == "halted", machine)
        for i, registers in enumerate(machine.registers()):
            assert registers["rdx"] == boot.MAGIC
            assert (registers["rbx"], registers["rcx"]) == (4 << 30, 2 << 20)
            assert registers["rsp"] == boot.STACK_TOP - i * boot.STACK_SIZE
        assert word(machine, (4 << 30) + (2 << 20) - 8) == 0x1234
        assert machine.arena.read(RAM - 8, 8) == (0x1234).to_bytes(8, "little")
        assert machine.name == "guest"


def test_bad_guests_and_numbers(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="is not an ELF file"):
        UnicornMachine(RAM, guest=__file__)
    with pytest.raises(MachineError, match="No such file"):
        UnicornMachine(RAM, guest=tmp_path / "none")
    with pytest.raises(UsageError, match="number of vCPUs is 5"):
        UnicornMachine(RAM, 5)
    with pytest.raises(UsageError, match="RAM size is 4096"):
        UnicornMachine(4096)
    with pytest.raises(UsageError, match="not a size"):
        UnicornMachine("lots")
    with pytest.raises(UsageError, match="share of memory"):
        UnicornMachine(RAM, dirty_share=1.5)


@needs_ledger
def test_a_library_that_is_not_unicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[UnicornMachine.__module__]
    for path, cause in (("/nowhere/lib.so", "cannot open"), ("libc.so.6", "has no uc_version")):
        monkeypatch.setattr(module, "unicorn_library", lambda path=path: path)
        with pytest.raises(MachineError, match=cause):
            UnicornMachine(RAM)
