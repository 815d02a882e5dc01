# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of Debian guests of other processors under load, byte for byte, and what debuggers see in
them: `make test-foreign`.

LIVEDUMP_FOREIGN_DUMPS=5 makes it run. Its short form, with recorded texts, is in
tests/unit/test_qemu_processors.py and test_processors.py.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drgn
import numpy as np
import pytest
from drgn.helpers.linux import get_dmesg

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump, verify_dump
from livedumpfs.linux import Kernel, tasks
from livedumpfs.machines.attach import AttachedMachine
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.machines.qemu.guest_kind import guest_kind
from livedumpfs.units import PAGE_SIZE
from tests.fixtures.mounted_dumps import Mounted
from tests.qemu.gdb_scripts import kernel_scripts, tasks_of_gdb
from tests.qemu.running_guests import RunningGuest, running
from tests.qemu.test_debuggers import crash, debugger, tasks_of_crash, tasks_of_drgn
from tests.qemu.test_guest import different_pages

DUMPS = int(os.environ.get("LIVEDUMP_FOREIGN_DUMPS", "0"))
DEADLINE_S = 600.0
BUILD = Path(__file__).resolve().parents[2] / "guest" / "foreign" / "build"
FORMATS = ("elf", "kdump", "raw")
CORES = ("elf", "kdump")
"""That debuggers read."""
MEMORY = 512
VCPUS = 2
CALLED = {"pstate": "cpsr", "s0": "fp"}
"""Registers that gdb calls otherwise."""

pytestmark = [
    pytest.mark.together,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not DUMPS, reason="`make test-foreign`; test_qemu_processors.py"),
]


@dataclass(frozen=True)
class Foreign:
    """A processor's guest. `name`: to Debian."""

    name: str
    program: str
    words: tuple[str, ...]
    console: str
    drgn_format: str
    """In which drgn translates the kernel's addresses."""

    @property
    def architecture(self) -> str:
        return self.program.rpartition("-")[2]

    @property
    def symbols(self) -> Path:
        return BUILD / self.name / "vmlinux"

    @property
    def crash(self) -> Path:
        return BUILD / self.name / "crash"

    def options(self, console: Path) -> list[str]:
        files = BUILD / self.name
        return [
            *self.words, "-accel", "tcg", "-m", f"{MEMORY}M", "-smp", str(VCPUS), "-nodefaults",
            "-no-reboot", "-serial", f"file:{console}", "-kernel", f"{files}/kernel",
            "-initrd", f"{files}/initramfs.gz", "-append", f"console={self.console} quiet panic=-1",
        ]  # fmt: skip


# drgn 0.3.0 has no page tables of RISC-V, but libkdumpfile in it has.
GUESTS = [
    Foreign("arm64", "qemu-system-aarch64", ("-M", "virt", "-cpu", "cortex-a57"), "ttyAMA0", "elf"),
    Foreign("riscv64", "qemu-system-riscv64", ("-M", "virt"), "ttyS0", "kdump"),
]


@pytest.fixture(scope="module", params=GUESTS, ids=lambda one: one.name)
def kind(request: pytest.FixtureRequest) -> Foreign:
    found: Foreign = request.param
    return found


@pytest.fixture(scope="module")
def under(kind: Foreign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """It under livedumpfs."""
    from tests.qemu.conftest import Guest

    console = tmp_path_factory.mktemp(kind.name) / "console"
    command = [kind.program, "-display", "none", *kind.options(console)]
    with QemuMachine(command) as machine:
        machine.start()
        guest = Guest(machine, console)
        boot(guest)
        yield guest


@pytest.fixture(scope="module")
def beside(
    kind: Foreign, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningGuest, Any]]:
    """It in a QEMU that runs already."""
    from tests.qemu.conftest import Guest

    folder = tmp_path_factory.mktemp(kind.name)
    words = kind.options(folder / "console")
    with running(folder, words, nice=0, program=kind.program) as found:
        guest = Guest(None, folder / "console")
        boot(guest)
        yield found, guest


def forks(guest: Any) -> int:
    return int(guest.number(r"forks (\d+)"))


def boot(guest: Any) -> None:
    guest.wait_for(lambda: forks(guest) > 0, DEADLINE_S)


def goes_on(guest: Any) -> None:
    before = forks(guest)
    guest.wait_for(lambda: forks(guest) > before + 1)


def check(
    target: Path, kind: Foreign, registers: list[Mapping[str, int]], tables: list[int]
) -> None:
    """What a dump says, besides its memory. `tables`: as in KernelKind."""
    with open_dump(target) as dump:
        assert verify_dump(dump).ok
        assert dump.meta["architecture"] == kind.architecture
        assert dump.registers == [dict(one) for one in registers]
        notes = {one["name"]: one["content"] for one in dump.meta["notes"]}
        assert "QEMU" not in notes
        ours = guest_kind(kind.architecture)
        (one,) = [one for one in dump_notes(dump) if one.name == b"VMCOREINFO\0"]
        places: Any = dump.memory_map
        assert ours.kernel.is_current(one.content, dump.read_arena, places, tables)


def dump_notes(dump: Any) -> Any:
    from livedumpfs.formats.note import parse_notes

    return parse_notes(dump.meta["notes"])


@pytest.mark.parametrize("number", range(DUMPS))
def test_a_live_dump_is_exact(kind: Foreign, under: Any, tmp_path: Path, number: int) -> None:
    """Compared with a copy that was made in the pause."""
    machine, target = under.machine, tmp_path / "dump"
    size, format = machine.arena.size, FORMATS[number % len(FORMATS)]
    live, reference = LiveDump(machine), os.memfd_create("reference")
    try:
        os.ftruncate(reference, size)
        live.init(target, DumpSettings(format=format), reference=reference)
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        counters, captured = live.counters(), machine._captured
        live.release()
        assert counters.lost == 0 and len(captured) == VCPUS
        assert different_pages(target, reference, size) == 0
        check(target, kind, [one.registers for one in captured], [one.tables for one in captured])
        goes_on(under)
        print(
            f"\n{kind.name} {number}: {format}, 0 of {size // PAGE_SIZE} pages differ, stop"
            f" {counters.quiesce_ns / 1e6:.1f} ms, {counters.faults} faults"
        )
    finally:
        live.release()
        os.close(reference)


@pytest.mark.parametrize("number", range(DUMPS))
def test_a_dump_by_attach_is_exact(
    kind: Foreign,
    beside: tuple[RunningGuest, Any],
    tmp_path: Path,
    number: int,
    running_on: None,
) -> None:
    """The reference is taken while the guest stands still; it writes on while QEMU sends what was
    there before."""
    del running_on
    qemu, guest = beside
    target, format = tmp_path / "dump", FORMATS[number % len(FORMATS)]
    with AttachedMachine(qemu.socket) as machine:
        qemu.other.execute("stop")
        wanted, shown = qemu.memory(machine.memory_map, machine.arena.size), qemu.registers()
        live = LiveDump(machine)
        live.init(target, DumpSettings(format=format))
        try:
            live.start()
            qemu.other.execute("cont")
            live.sweep()
            assert live.finish(DEADLINE_S) == "consistent", live.failure
        finally:
            live.release()
            qemu.other.execute("cont")
        assert [one.registers for one in machine._captured] == [one.registers for one in shown]
        assert [one.tables for one in machine._captured] == [one.tables for one in shown]
        with open_dump(target) as dump:
            got = np.frombuffer(dump.read_arena(0, machine.arena.size), np.uint8)
            different = int((got.reshape(-1, PAGE_SIZE) != wanted).any(axis=1).sum())
        assert different == 0
        check(target, kind, [one.registers for one in shown], [one.tables for one in shown])
        goes_on(guest)
        stop = machine.stop_times.stop_ns / 1e6
        print(f"\n{kind.name} {number}: {format}, 0 of {len(wanted)} pages differ, stop {stop} ms")


@pytest.fixture(scope="module")
def cores(
    kind: Foreign, under: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("cores")
    live, found = LiveDump(under.machine), {}
    for format in CORES:
        found[format] = folder / format
        live.save(found[format], DumpSettings(format=format))
    under.machine.monitor.execute("stop")  # the debuggers need a core
    try:
        yield found
    finally:
        under.machine.monitor.execute("cont")


def test_gdb_reads_the_registers(kind: Foreign, cores: dict[str, Path]) -> None:
    with open_dump(cores["elf"]) as dump:
        known = dump.registers
    names = [CALLED.get(name, name) for name in known[0]]
    commands = [f"core-file {cores['elf']}"]
    for number in range(VCPUS):
        commands += [f"thread {number + 1}", *(f"print/x ${name}" for name in names)]
    words = [word for one in commands for word in ("-ex", one)]
    done = subprocess.run(
        ["gdb-multiarch", "-nx", "-batch", *words],
        capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    shown = [int(one, 16) for one in re.findall(r"^\$\d+ = (0x\w+)$", done.stdout, re.MULTILINE)]
    assert shown == [value for one in known for value in one.values()], done.stderr


@pytest.fixture(scope="module")
def program(kind: Foreign, cores: dict[str, Path]) -> drgn.Program:
    assert kind.symbols.exists(), "`make -C guest/foreign symbols` gets them"
    return debugger(cores[kind.drgn_format], kind.symbols)


def test_drgn_lists_tasks_and_log(kind: Foreign, under: Any, program: drgn.Program) -> None:
    found, log = tasks_of_drgn(program), get_dmesg(program).decode()
    names = [*found.values()]
    assert found[1] == "init" and found[2] == "kthreadd" and "dd" in names, names
    assert f"console={kind.console} quiet" in log and "Linux version" in log
    release = program["init_uts_ns"].name.release.string_().decode()
    assert release == under.word(r"release (\S+)")
    print(f"\n{kind.name}: {len(found)} tasks, {len(log.splitlines())} lines of log, {release}")


def test_drgn_shows_stacks(kind: Foreign, program: drgn.Program) -> None:
    """Of tasks that wait, and of what the vCPUs run."""
    if kind.architecture == "riscv64":
        pytest.skip("drgn 0.3.0 has no stacks of RISC-V")
    assert "kthreadd" in [one.name for one in program.stack_trace(2)]
    assert "do_el0_svc" in [one.name for one in program.stack_trace(1)]


def tasks_in(core: Path) -> dict[int, str]:
    """By what the kernel has in its memory. Not the idle one."""
    with open_dump(core) as dump:
        found = tasks(Kernel(dump.meta, dump.read_physical))
        return {one.pid: one.name for one in found if one.pid}


def test_our_reader_lists_the_tasks_of_drgn(
    kind: Foreign, cores: dict[str, Path], program: drgn.Program
) -> None:
    assert tasks_in(cores[kind.drgn_format]) == tasks_of_drgn(program)


def test_the_kernels_gdb_scripts_list_tasks_and_log(
    kind: Foreign, cores: dict[str, Path], tmp_path: Path
) -> None:
    """On kcore, by the kernel's own addresses."""
    with Mounted(str(cores["elf"]), tmp_path / "mount") as mounted:
        kcore = mounted.root / "kcore"
        told = kernel_scripts(cores["elf"], kcore, BUILD / kind.name, "lx-ps", "lx-dmesg", "bt")
    assert tasks_of_gdb(told["lx-ps"]) == tasks_in(cores["elf"])
    assert "Linux version" in told["lx-dmesg"] and "console=" in told["lx-dmesg"]
    assert re.search(r"^#0 ", told["bt"], re.MULTILINE), told


def options_of_crash(core: Path) -> tuple[str, ...]:
    """crash 8.0.6 takes an AArch64 kernel since 6.9 that is built for 52 bits of virtual addresses,
    on a processor with 48, for one of 48, whose linear mapping begins higher."""
    with open_dump(core) as dump:
        (text,) = [one.content for one in dump_notes(dump) if one.name == b"VMCOREINFO\0"]
    said = dict(re.findall(rb"^NUMBER\((\w+)\)=(\w+)$", text, re.MULTILINE))
    if (said.get(b"TCR_EL1_T1SZ"), said[b"VA_BITS"]) != (b"0x10", b"52"):
        return ()
    offset = (int(said[b"PHYS_OFFSET"], 0) + (1 << 52) - (1 << 48)) % (1 << 64)
    return ("-m", f"phys_offset={offset:#x}")


@pytest.mark.parametrize("format", CORES)
def test_crash_lists_tasks_log_and_stacks(
    kind: Foreign, under: Any, cores: dict[str, Path], tmp_path: Path, format: str
) -> None:
    assert kind.crash.exists(), "`make -C guest/foreign crash` builds it"
    commands = ("sys", "ps", "log", "bt 1", "bt 2", "bt -a")
    shown = crash(
        cores[format], tmp_path, *commands, program=kind.crash, symbols=kind.symbols,
        options=options_of_crash(cores[format]), seconds=DEADLINE_S,
    )  # fmt: skip
    told = dict(zip(commands, shown, strict=True))
    assert tasks_of_crash(told["ps"]) == tasks_in(cores[format])
    assert under.word(r"release (\S+)") in told["sys"] and f"CPUS: {VCPUS}" in told["sys"]
    assert "Linux version" in told["log"]
    assert "kernel_wait4" in told["bt 1"] and "kthreadd" in told["bt 2"]
    assert told["bt -a"].count("PID: ") == VCPUS
