# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's notes of the vCPUs in dumps of both ways: those of QEMU's own dump of the same stop, where
the guest's readers want them. No Windows is here: guest/windows_sign.S has what tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import drgn
import pytest
from aftermath import wait_for
from elftools.elf.elffile import ELFFile
from firmware import ROUNDS, WINDOWS_SIGN, build

from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.errors import UsageError
from livedumpfs.machines import UnicornMachine
from livedumpfs.machines.attach import AttachedMachine
from livedumpfs.machines.qemu import QemuMachine
from livedumpfs.settings import CPU_NOTES
from tests.qemu.running_guests import RunningGuest, firmware_words, running

DEADLINE_S = 300.0
CPUS = ("-cpu", "max", "-smp", "2")
FLAGS = slice(144, 152)
"""RFLAGS in QEMUCPUState."""
REFUSED = "unrecognized QEMU memory dump"
"""What drgn says to QEMU's notes without VMCOREINFO."""


@pytest.fixture(scope="module")
def windows_sign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sign"), WINDOWS_SIGN)


def count(monitor: Any) -> int:
    return int(monitor.hmp(f"xp /1wx {ROUNDS:#x}").split()[-1], 16)


@pytest.fixture(params=["attach", "under"])
def started(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[Path], tuple[Any, Any]]]:
    """started(firmware): a machine whose guest runs it, and a monitor of its QEMU."""
    ends: list[Callable[[], object]] = []

    def start(firmware: Path) -> tuple[Any, Any]:
        words = [*firmware_words(firmware), *CPUS]
        if request.param == "attach":
            context = running(tmp_path, words)
            guest: RunningGuest = context.__enter__()
            ends.append(lambda: context.__exit__(None, None, None))
            machine: Any = AttachedMachine(guest.socket)
            monitor = guest.other
        else:
            machine = QemuMachine(["qemu-system-x86_64", "-display", "none", *words])
            machine.start()
            monitor = machine.monitor
        ends.append(machine.close)
        wait_for(lambda: count(monitor) > 0, lambda: count(monitor))
        return machine, monitor

    yield start
    for end in reversed(ends):
        end()


def notes(core: Path) -> list[tuple[str, bytes]]:
    """Name and content of each, without those that livedumpfs adds."""
    with core.open("rb") as file:
        (segment,) = [one for one in ELFFile(file).iter_segments() if one["p_type"] == "PT_NOTE"]
        # elf2dmp walks through the notes by their size in memory.
        assert segment["p_memsz"] == segment["p_filesz"]
        found = [(one["n_name"], bytes(one["n_descdata"])) for one in segment.iter_notes()]
    return [one for one in found if one[0] != "LIVEDUMPFS"]


def settled(state: bytes) -> bytes:
    """Without the arithmetic flags: under TCG QEMU's own dump has stale ones of a vCPU."""
    flags = int.from_bytes(state[FLAGS], "little") & ~0x8D5
    return state[: FLAGS.start] + flags.to_bytes(8, "little") + state[FLAGS.stop :]


def dumped(machine: Any, target: Path, **settings: Any) -> Path:
    live = LiveDump(machine)
    live.init(target, DumpSettings(**settings))
    try:
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
    finally:
        live.release()
    return target


def opened(core: Path) -> None:
    drgn.Program().set_core_dump(str(core))


def test_they_are_those_of_qemus_own_dump(
    started: Callable[[Path], tuple[Any, Any]], windows_sign: Path, tmp_path: Path
) -> None:
    machine, monitor = started(windows_sign)
    monitor.execute("stop")
    own = tmp_path / "own"
    for choice in CPU_NOTES:
        # Each time: `attach` lets a paused guest run for a moment.
        monitor.execute("dump-guest-memory", {"paging": False, "protocol": f"file:{own}"})
        wanted = [settled(content) for name, content in notes(own) if name == "QEMU"]
        assert len(wanted) == 2 and wanted[0] != wanted[1]
        core = dumped(machine, tmp_path / choice, cpu_notes=choice)
        names = [name for name, _ in notes(core)]
        assert names == ["CORE", "CORE"] + ["QEMU"] * (0 if choice == "off" else 2)
        found = [settled(content) for _, content in notes(core)[2:]]
        assert found == ([] if choice == "off" else wanted), choice
        if choice == "off":
            opened(core)
        else:
            with pytest.raises(ValueError, match=REFUSED):
                opened(core)


def test_another_guest_has_them_only_where_it_is_told_so(
    started: Callable[[Path], tuple[Any, Any]], firmware: Path, tmp_path: Path
) -> None:
    machine, _ = started(firmware)
    for choice, names in (("auto", []), ("on", ["QEMU", "QEMU"])):
        core = dumped(machine, tmp_path / choice, cpu_notes=choice)
        assert [name for name, _ in notes(core)[2:]] == names
    opened(tmp_path / "auto")


def test_a_machine_without_them_says_so(tmp_path: Path) -> None:
    with UnicornMachine(4 << 20) as machine:
        with pytest.raises(UsageError, match="has no CPU notes of QEMU's"):
            LiveDump(machine).init(tmp_path / "dump", DumpSettings(cpu_notes="on"))
        assert not (tmp_path / "dump").exists()
