# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn machines: holding vCPUs exactly, crashes, halts, console, and the ledger on top."""

from __future__ import annotations

import errno
import os
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livedumpfs.core.capi import ffi, lib
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.machines import BUILT_IN_GUEST, UnicornMachine, boot, verify_ledger
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.program_files import program_file

RAM = 8 << 20
DEADLINE = 300.0
STOPS = int(os.environ.get("LIVEDUMP_STOPS", "25"))
"""Copies of the held ledger; `make exact` takes 1000."""

needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
needs_ledger = pytest.mark.skipif(
    not BUILT_IN_GUEST.exists(), reason="the built-in guest is not built: make guest"
)

MakeGuest = Callable[[str | Path], Path]


@pytest.fixture
def guest(tmp_path: Path) -> MakeGuest:
    """Assemble a guest: from a file, or from what comes behind `_start`."""

    def make(body: str | Path) -> Path:
        source, output = tmp_path / "guest.S", tmp_path / "guest.elf"
        if isinstance(body, Path):
            source = body
        else:
            source.write_text(f"\t.globl _start\n_start:\n{body}\n\t.section .note.GNU-stack\n")
        command = ["gcc", "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x100000"]
        command += ["-Wl,--build-id=none", "-Wl,-z,noexecstack", "-o", str(output), str(source)]
        subprocess.run(command, check=True, timeout=300)
        return output

    return make


def wait_for(condition: Callable[[], object], machine: UnicornMachine) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE} s: {machine.status()}"
        time.sleep(0.001)


def word(machine: UnicornMachine, address: int) -> int:
    return int.from_bytes(machine.read_physical(address, 8), "little")


def threads_of_vcpus() -> list[str]:
    names = [Path(f"/proc/self/task/{t}/comm") for t in os.listdir("/proc/self/task")]
    return [n for n in (p.read_text().strip() for p in names) if n.startswith("ldfs-vcpu")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not threads_of_vcpus()


# ---------------------------------------------------------------------- holding vCPUs

COUNT = """
	mov $0x200000, %rbx
1:	incq (%rbx)
	inc %r15
	jmp 1b
"""


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


# ---------------------------------------------------------------------- stopping


@needs_gcc
def test_stop_while_held_runs_no_more_guest_code(guest: MakeGuest) -> None:
    machine = UnicornMachine(RAM, guest=guest(COUNT))
    machine.start()
    wait_for(lambda: word(machine, 0x200000), machine)
    machine.quiesce()
    count = word(machine, 0x200000)
    machine.stop()
    assert word(machine, 0x200000) == count == machine.registers()[0]["r15"]
    assert machine.state == "stopped"
    machine.stop()
    machine.close()
    machine.close()
    with pytest.raises(MachineError, match="closed"):
        machine.status()


@needs_gcc
@pytest.mark.parametrize("body", ["1: jmp 1b", "sti; 1: hlt; jmp 1b", "cli; hlt", "ud2"])
def test_close_ends_the_threads_whatever_they_do(guest: MakeGuest, body: str) -> None:
    machine = UnicornMachine(RAM, 4, guest=guest(body))
    machine.start()
    with pytest.raises(MachineError) as caught:
        machine.start()
    assert caught.value.errno == errno.EBUSY
    machine.close()
    assert not threads_of_vcpus()


def test_close_before_start() -> None:
    if not BUILT_IN_GUEST.exists():
        pytest.skip("the built-in guest is not built: make guest")
    machine = UnicornMachine(RAM)
    assert machine.state == "new"
    assert machine.registers()[0]["rdi"] == boot.PARAMS
    machine.close()


@needs_gcc
def test_memory_is_not_freed_under_a_vcpu_that_does_not_stop(guest: MakeGuest) -> None:
    machine = UnicornMachine(RAM, guest=guest(COUNT))
    machine.start()
    wait_for(lambda: word(machine, 0x200000), machine)
    # A deadline that has passed stands for a vCPU that hangs in a fault.
    rc = lib.ldfs_machine_stop(machine._handle, 1)
    if rc:
        assert rc == -errno.ETIMEDOUT
        assert lib.ldfs_machine_destroy(machine._handle) == -errno.EBUSY
    machine.close()


@needs_gcc
def test_a_machine_that_is_forgotten_is_stopped(guest: MakeGuest) -> None:
    machine = UnicornMachine(RAM, guest=guest(COUNT))
    machine.start()
    del machine
    assert not threads_of_vcpus()


@needs_ledger
def test_a_program_that_ends_with_a_machine_running_ends() -> None:
    code = "from livedumpfs.machines import UnicornMachine as M; m = M('8MiB', 2); m.start()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_vcpu_threads_block_no_fault_signal() -> None:
    if not BUILT_IN_GUEST.exists():
        pytest.skip("the built-in guest is not built: make guest")
    with UnicornMachine(RAM):
        (tid,) = [
            t
            for t in os.listdir("/proc/self/task")
            if Path(f"/proc/self/task/{t}/comm").read_text().startswith("ldfs-vcpu")
        ]
        status = Path(f"/proc/self/task/{tid}/status").read_text()
        blocked = int(status.split("SigBlk:")[1].split()[0], 16)
        assert not blocked & 1 << 11 - 1  # SIGSEGV
        assert blocked & 1 << 2 - 1  # SIGINT is for the program's own threads


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
        monkeypatch.setattr(module, "_library", lambda path=path: path)
        with pytest.raises(MachineError, match=cause):
            UnicornMachine(RAM)


# ---------------------------------------------------------------------- the ledger

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


# ---------------------------------------------------------------------- debuggers


def write_core(machine: UnicornMachine, path: Path) -> None:
    """A core of the paused machine: one segment, one NT_PRSTATUS a vCPU."""
    notes = b""
    for pid, registers in enumerate(machine.registers(), 1):
        values = [registers[name] for name, _ in ffi.typeof("ldfs_registers").fields]
        status = struct.pack("<32xI76x27Q8x", pid, *values)
        assert len(status) == 336
        notes += struct.pack("<3I8s", 5, len(status), 1, b"CORE") + status
    data = -(-(64 + 2 * 56 + len(notes)) // PAGE_SIZE) * PAGE_SIZE
    head = struct.pack(
        "<4sBBB9x2HI3QI6H", b"\x7fELF", 2, 1, 1, 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    head += struct.pack("<2I6Q", 4, 0, 64 + 2 * 56, 0, 0, len(notes), 0, 4)
    head += struct.pack(
        "<2I6Q", 1, 7, data, 0, 0, machine.arena.size, machine.arena.size, PAGE_SIZE
    )
    path.write_bytes((head + notes).ljust(data, b"\0") + machine.arena.read(0, machine.arena.size))


@needs_ledger
@pytest.mark.skipif(not shutil.which("gdb"), reason="gdb is not installed")
def test_gdb_shows_the_guests_stack_and_globals(tmp_path: Path) -> None:
    with UnicornMachine(RAM, 2) as machine:
        machine.wait_ready(DEADLINE)
        wait_for(lambda: all(r["r15"] for r in machine.registers()), machine)
        machine.quiesce()
        write_core(machine, tmp_path / "core")
        registers = machine.registers()
        machine.resume()
    commands = ["set debuginfod enabled off", "thread apply all backtrace"]
    commands += ["p ledger[1].vcpu", "p ledger[0].transfers", "info registers r15"]
    arguments = [argument for c in commands for argument in ("-ex", c)]
    done = subprocess.run(
        ["gdb", "-nx", "-batch", *arguments, str(BUILT_IN_GUEST), str(tmp_path / "core")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    shown = done.stdout
    assert shown.count(" run_ledger (") == 2, shown + done.stderr
    assert shown.count(" kmain (boot=0x1") == 2
    assert shown.count(" _start ()") == 2
    assert "= 1\n" in shown
    count = int(shown.split("$2 = ")[1].split()[0])
    assert count - registers[0]["r15"] in (0, 1)
