# SPDX-License-Identifier: GPL-2.0-or-later
"""The RISC-V board with programs of no operating system: the built-in ledger, and others. Dumps of
it are in test_exactness.py."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from livedumpfs.cli.main import main
from livedumpfs.cli.outcome import Exit
from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.machines import BUILT_IN_RISCV64, LedgerReport, RiscvMachine, boot, verify_ledger
from tests.fixtures.unicorn_guests import DEADLINE

TOP = Path(__file__).resolve().parents[2]
STOPS = int(os.environ.get("LIVEDUMP_STOPS", "25"))
"""Copies of the held ledger; `make exact` takes 1000."""
RAM = 16 << 20
START = 0x80000000
PARAMS = boot.address(0, START)
LIVEDUMP = [sys.executable, "-P", "-m", "livedumpfs.cli"]
COMPILER = "riscv64-linux-gnu-gcc"

pytestmark = pytest.mark.usefixtures("no_vcpu_is_left")
needs_guest = pytest.mark.skipif(
    not BUILT_IN_RISCV64.exists(), reason="the guest for riscv64 is not built: make guest"
)
needs_compiler = pytest.mark.skipif(not shutil.which(COMPILER), reason=f"there is no {COMPILER}")


def wait_for(condition: Callable[[], object], machine: RiscvMachine) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, (machine.status(), machine.console())
        time.sleep(0.001)


def counted(machine: RiscvMachine) -> int:
    return machine.registers()[0]["s11"]


def held_report(machine: RiscvMachine) -> LedgerReport:
    """Of a copy that is made while it is held, checked when it runs again."""
    machine.quiesce(DEADLINE)
    registers, memory = machine.registers(), machine.arena.read(0, machine.arena.size)
    machine.resume()
    return report_of(memory, registers)


def report_of(memory: bytes, registers: list[dict[str, int]] | None = None) -> LedgerReport:
    def read(address: int, length: int) -> bytes:
        if not START <= address <= START + len(memory) - length:
            raise ValueError(f"{address:#x} is not RAM")
        return memory[address - START : address - START + length]

    return verify_ledger(read, len(memory), registers, ram_start=START)


@needs_guest
@pytest.mark.timeout(900)
def test_copies_made_while_held_are_exact() -> None:
    rng, in_flight, transfers = random.Random(1), 0, 0
    with RiscvMachine(RAM) as machine:
        machine.wait_ready(DEADLINE)
        for _ in range(STOPS):
            wait_for(lambda seen=transfers: counted(machine) > seen + 1, machine)
            time.sleep(rng.random() / 500)
            report = held_report(machine)
            assert report.ok and report.counter_ok, report.message
            assert report.found + report.in_flight == report.expected
            assert report.mismatches == 0 and report.transfers > transfers
            transfers = report.transfers
            in_flight += report.in_flight != 0
        # It is held in the middle of transfers, too, or the proof would be worth little.
        assert in_flight > 0


@needs_guest
def test_copies_made_while_it_runs_are_found_out() -> None:
    with RiscvMachine(RAM) as machine:
        machine.wait_ready(DEADLINE)
        for _ in range(10):
            memory = machine.arena.read(0, RAM // 2)
            then = counted(machine)
            wait_for(lambda then=then: counted(machine) > then + 100, machine)
            memory += machine.arena.read(RAM // 2, RAM // 2)
            assert not report_of(memory).ok


@needs_guest
def test_the_guest_itself_sees_an_instruction_that_ran_twice() -> None:
    with RiscvMachine(RAM) as machine:
        machine.wait_ready(DEADLINE)
        params = boot.BootParams.unpack(machine.read_physical(PARAMS, boot.SIZE))
        at = params.ledger - START + 48
        machine.quiesce()
        count = int.from_bytes(machine.arena.read(at, 8), "little")
        machine.arena.live[at : at + 8] = memoryview((count + 1).to_bytes(8, "little"))
        machine.resume()
        wait_for(lambda: machine.read_physical(params.ledger + 56, 1) == b"\1", machine)
        report = held_report(machine)
        assert not report.ok and not report.counter_ok


@needs_guest
def test_share_and_rate() -> None:
    """It sleeps by the board's timer."""
    with RiscvMachine(64 << 20, dirty_share=0.1, rate=2000) as machine:
        machine.wait_ready(DEADLINE)
        assert machine.arena.resident() < 12 << 20
        begin, first = time.monotonic(), counted(machine)
        wait_for(lambda: counted(machine) > first + 100, machine)
        done, elapsed = counted(machine) - first, time.monotonic() - begin
        # Two transfers a tick: never more, however the test is scheduled.
        assert done <= 2 * (elapsed * 1000 + 3)
        assert machine.board_status().ticks > 10
        report = held_report(machine)
        assert report.ok, report.message
        assert machine.metadata()["dirty_share"] == 0.1


@needs_guest
def test_gdb_shows_the_guests_stack_and_globals(tmp_path: Path) -> None:
    gdb = shutil.which("gdb-multiarch")
    if not gdb:
        pytest.skip("gdb-multiarch is not installed")
    target = tmp_path / "dump"
    with RiscvMachine(RAM) as machine:
        machine.wait_ready(DEADLINE)
        wait_for(lambda: counted(machine) > 1000, machine)
        live = LiveDump(machine)
        live.init(target, DumpSettings())
        try:
            live.start()
            live.sweep()
            assert live.finish(DEADLINE) == "consistent"
        finally:
            live.release()
        count = machine.snapshot_registers()[0]["s11"]
    commands = ["set debuginfod enabled off", "backtrace", "p ledger[0].transfers", "p $s11"]
    arguments = [argument for c in commands for argument in ("-ex", c)]
    done = subprocess.run(
        [gdb, "-nx", "-batch", *arguments, str(BUILT_IN_RISCV64), str(target)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    shown = done.stdout
    frames = re.findall(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\w+) \(", shown, re.MULTILINE)
    assert frames[-3:] == ["run_ledger", "kmain", "_start"], shown + done.stderr
    found = [int(number) for number in re.findall(r"^\$\d = (\d+)$", shown, re.MULTILINE)]
    assert found[1] == count and found[0] - count in (0, 1), shown


@needs_guest
def test_a_host_of_it_is_verified(tmp_path: Path) -> None:
    """By the commands: its dump has the ledger's proof."""
    mount = tmp_path / "mount"
    mount.mkdir()
    host = subprocess.Popen(
        [*LIVEDUMP, "host", "--arch", "riscv64", "--ram", "16M", "--mount", mount],
        stdout=subprocess.PIPE, text=True, cwd=TOP,
    )  # fmt: skip
    try:
        assert host.stdout
        assert host.stdout.readline() == "ledger, 16 MiB, 1 vCPU: running\n"
        target = tmp_path / "dump"
        for words in (["dump", "--device", mount, target], ["verify", target]):
            done = subprocess.run(
                [*LIVEDUMP, *words], capture_output=True, text=True, timeout=DEADLINE, cwd=TOP,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"\d+ accounts hold \d+", done.stdout), done.stdout
    finally:
        host.terminate()
        host.communicate(timeout=DEADLINE)


# --------------------------------------------------------------------- other programs

SAY_AND_END = """
	li a7, 0x4442434e
	li a6, 2
	li a0, 'x'
	ecall
	li a7, 0x53525354
	li a6, 0
	li a0, {how}
	li a1, 0
	ecall
1:	j 1b
"""


def assemble(folder: Path, body: str) -> Path:
    """A program of what comes behind `_start`, where RAM is."""
    source, output = folder / "guest.S", folder / "guest.elf"
    source.write_text(f"\t.globl _start\n_start:\n{body}\n")
    command = [COMPILER, "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x80100000"]
    command += ["-Wl,--build-id=none", "-o", str(output), str(source)]
    subprocess.run(command, check=True, timeout=300)
    return output


@needs_compiler
def test_a_program_ends_itself(tmp_path: Path) -> None:
    with RiscvMachine(4 << 20, assemble(tmp_path, SAY_AND_END.format(how=0))) as machine:
        wait_for(machine.ended, machine)
        assert machine.state == "halted" and machine.name == "guest"
        assert machine.console() == b"x"


@needs_compiler
def test_a_program_is_loaded_again(tmp_path: Path) -> None:
    with RiscvMachine(4 << 20, assemble(tmp_path, SAY_AND_END.format(how=1))) as machine:
        wait_for(lambda: machine.board_status().boots > 3, machine)
        assert machine.console().startswith(b"xxx") and not machine.ended()


@needs_guest
def test_the_last_words_of_a_guest_that_is_broken(tmp_path: Path) -> None:
    """One whose kmain is no instruction: it says where it was, and ends."""
    data = bytearray(BUILT_IN_RISCV64.read_bytes())
    elf = ELFFile(io.BytesIO(data))
    (symbol,) = elf.get_section_by_name(".symtab").get_symbol_by_name("kmain")
    at = symbol["st_value"]
    place = next(elf.address_offsets(at))
    data[place : place + 4] = bytes(4)
    broken = tmp_path / "broken.elf"
    broken.write_bytes(data)
    with RiscvMachine(4 << 20, broken) as machine:
        wait_for(machine.ended, machine)
        assert f"ledger guest: exception 2 at {at}, ".encode() in machine.console()


@needs_compiler
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (".word 0", "CPU exception 2 (illegal instruction)"),
        ("nop; ld a0, 8(zero)", "CPU exception 5 (load access fault)"),
        ("nop; sd a0, 8(zero)", "CPU exception 7 (store access fault)"),
        ("nop; ebreak", "CPU exception 3 (breakpoint)"),
        ("nop; jr zero", "CPU exception 1 (instruction access fault)"),
    ],
)
def test_an_exception_without_a_handler_is_its_end(body: str, reason: str, tmp_path: Path) -> None:
    with RiscvMachine(4 << 20, assemble(tmp_path, f"\t.option norvc\n\t{body}\n")) as machine:
        wait_for(lambda: machine.state == "failed", machine)
        (status,) = machine.status()
        at = 0 if "instruction access" in reason else 0x80100000 + 4 * ("nop" in body)
        assert (status.reason, status.pc) == (reason, at)
        assert machine.registers()[0]["pc"] == at and not machine.ended()


@needs_compiler
def test_the_file_says_which_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = assemble(tmp_path, SAY_AND_END.format(how=0))
    assert main(["host", "--guest", str(program), "--vcpus", "2"]) == Exit.USAGE
    assert "riscv64 has one vCPU here" in capsys.readouterr().err
    mount = tmp_path / "mount"
    mount.mkdir()
    done = subprocess.run(
        [*LIVEDUMP, "host", "--guest", program, "--mount", mount],
        capture_output=True, text=True, timeout=DEADLINE, cwd=TOP, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("guest, 256 MiB, 1 vCPU: running\n")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--arch", "riscv64", "--guest", "g"], "--arch is for the built-in guest"),
        (["--arch", "riscv64", "--linux"], "--arch is for the built-in guest"),
        (["--arch", "riscv64", "--vcpus", "2"], "riscv64 has one vCPU here"),
    ],
)
def test_options_that_do_not_go_together(
    words: list[str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["host", *words]) == Exit.USAGE
    said = capsys.readouterr().err
    assert cause in said and said.count("\n") == 1


def test_sizes_and_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RAM size is 1048576 bytes"):
        RiscvMachine(1 << 20)
    other = tmp_path / "other"
    other.write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(MachineError, match="cannot run guest"):
        RiscvMachine(RAM, other)
