# SPDX-License-Identifier: GPL-2.0-or-later
"""What `verify` says of a dump with things wrong: one error line, with all of them; the ledger
of the built-in guest is checked, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.cli.main import main
from livedumpfs.cli.proof import LEDGER, prove_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.dumpfile import ARMED, SAVED
from livedumpfs.formats import MachineInfo, MemoryRange
from livedumpfs.machines import UnicornMachine
from livedumpfs.units import PAGE_SIZE

MIB = 1 << 20


def test_several_problems_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dump"
    with Arena(MIB) as arena, LiveDump(arena) as live:
        arena.live[: MIB // 2] = 1
        settings = DumpSettings(format="raw", granule=PAGE_SIZE, table="tail")
        assert live.save(path, settings) == "consistent"
    with path.open("r+b") as file:
        file.write(b"2")
        file.seek(MIB - PAGE_SIZE)
        file.write(b"3")
    with open_dump(path) as dump:
        assert dump.verdict == "consistent"
    assert main(["verify", str(path)]) == 3
    said = "".join(one for one in capsys.readouterr().err.splitlines(True) if ": error: " in one)
    assert said == (
        f"livedump: error: {path}: 2 problems: pages 0x0 are not as they were saved; "
        "pages 0xff should be zeros and are not\n"
    )


def test_one_problem_is_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dump"
    with Arena(MIB) as arena, LiveDump(arena) as live:
        arena.live[:] = 1
        settings = DumpSettings(format="raw", granule=PAGE_SIZE, table="tail")
        assert live.save(path, settings) == "consistent"
    with path.open("r+b") as file:
        file.write(b"2")
    assert main(["verify", str(path)]) == 3
    said = "".join(one for one in capsys.readouterr().err.splitlines(True) if ": error: " in one)
    assert said == f"livedump: error: {path}: pages 0x0 are not as they were saved\n"


def test_the_ledger_is_a_part_of_the_proof(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write_dump: Callable[..., object]
) -> None:
    """Nothing but the ledger is wrong here: memory is as it was saved, and no guest wrote it."""
    path = tmp_path / "dump"
    machine = MachineInfo(LEDGER, vcpus=1, memory_map=(MemoryRange(0, MIB, 0),))
    write_dump(path, b"x" * MIB, machine=machine)
    with open_dump(path) as dump:
        report = prove_dump(dump)
    assert report.checksums.ok and report.verdict == "consistent"
    assert report.ledger is not None and not report.ledger.ok
    assert report.problems == [f"the ledger is wrong: {report.ledger.message}"]
    assert main(["verify", str(path)]) == 3
    shown = capsys.readouterr()
    assert f"error: {path}: the ledger is wrong: no ledger: " in shown.err
    assert f"ledger   {report.ledger.message}" in shown.out


@pytest.mark.parametrize("name, states", [("threads", SAVED), (LEDGER, ARMED)])
def test_no_ledger_is_looked_for_in_another_machine_or_half_a_dump(
    tmp_path: Path, write_dump: Callable[..., object], name: str, states: int
) -> None:
    path = tmp_path / "dump"
    machine = MachineInfo(name, vcpus=1, memory_map=(MemoryRange(0, MIB, 0),))
    write_dump(path, b"x" * MIB, machine=machine, states=[states] * (MIB // PAGE_SIZE))
    with open_dump(path) as dump:
        report = prove_dump(dump)
    assert report.ledger is None and not [one for one in report.problems if "ledger" in one]


def test_the_built_in_guest_s_machine_is_the_one_with_a_ledger() -> None:
    with UnicornMachine(16 * MIB) as machine:
        assert machine.name == LEDGER
