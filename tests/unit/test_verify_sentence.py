# SPDX-License-Identifier: GPL-2.0-or-later
"""What `verify` says of a dump with several things wrong: one error line, with all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.cli.main import main
from livedumpfs.dump import DumpSettings
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
