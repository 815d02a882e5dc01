# SPDX-License-Identifier: GPL-2.0-or-later
"""`info` and `verify` on dumps in files, good and bad."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs.cli.main import main
from livedumpfs.cli.outcome import Exit
from livedumpfs.formats import MachineInfo, MemoryRange, Plan
from livedumpfs.formats.table import LOST, SAVED

GRANULE = 16384
MEMORY = bytes(range(256)) * (8 * GRANULE // 256) + bytes(4 * GRANULE)
DumpWriter = Callable[..., Plan]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def dump(tmp_path: Path, write_dump: DumpWriter) -> Callable[..., Path]:
    """dump(**how) -> a file with a dump of MEMORY."""

    def make(**how: object) -> Path:
        path = tmp_path / "dump"
        write_dump(path, MEMORY, granule=GRANULE, **how)
        return path

    return make


@pytest.mark.parametrize("layout", ["elf", "raw", "kdump"])
def test_a_good_dump(layout: str, dump: Callable[..., Path], capsys: Capture) -> None:
    path = str(dump(format=layout))
    assert main(["info", path]) == Exit.DONE
    out, err = capsys.readouterr()
    assert "consistent" in out
    assert err == ""
    assert main(["verify", path]) == Exit.DONE
    assert "8 granules right, 4 holes" in capsys.readouterr().out


def lines_of(out: str, label: str) -> list[str]:
    return [line[12:] for line in out.splitlines() if line[:12].strip() == label]


@pytest.mark.parametrize("command", ["info", "verify"])
def test_ranges_only_when_asked_for(
    command: str, tmp_path: Path, write_dump: DumpWriter, capsys: Capture
) -> None:
    """A machine of many ranges whose granules were saved in turns."""
    path, size = str(tmp_path / "dump"), 40 * 4096
    ranges = tuple(MemoryRange(2 * n * 4096, 4096, n * 4096) for n in range(40))
    arrays = [{"name": f"a{n}", "dtype": "<i8", "shape": [4], "offset": 64 * n} for n in range(30)]
    memory = b"".join(bytes([n % 2]) * 4096 for n in range(40))
    machine = MachineInfo("many", vcpus=1, memory_map=ranges, architecture="x86_64")
    write_dump(path, memory, machine=machine, meta={"arrays": arrays}, format="raw")
    assert main([command, path]) == Exit.DONE
    short = capsys.readouterr().out
    assert lines_of(short, "memory") == ["160 KiB in 40 ranges"] and size == len(memory)
    assert lines_of(short, "by sweep") == ["20 granules in 20 ranges"]
    assert lines_of(short, "holes") == ["20 granules in 20 ranges"]
    assert lines_of(short, "arrays") == ["30: a0, a1, a2, a3, a4, a5, a6, a7 and 22 more"]
    assert len(short.splitlines()) < 20 and "range " not in short and "0x" not in short
    assert main([command, "-v", path]) == Exit.DONE
    long = capsys.readouterr().out
    assert len(lines_of(long, "range")) == 40 and len(lines_of(long, "array")) == 30
    assert lines_of(long, "by sweep")[1:] == [f"pages {n:#x}" for n in range(1, 40, 2)]
    assert lines_of(long, "holes")[1:] == [f"pages {n:#x}" for n in range(0, 40, 2)]
    if command == "info":
        assert long.startswith(short)


def test_info_for_programs(dump: Callable[..., Path], capsys: Capture) -> None:
    assert main(["info", "--json", str(dump())]) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "consistent"
    assert told["arena_size"] == len(MEMORY)
    assert told["granule_size"] == GRANULE


@pytest.mark.parametrize("until", ["opening", "started"])
@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_dump_that_was_broken_off(
    command: str, until: str, dump: Callable[..., Path], capsys: Capture
) -> None:
    path = dump()
    os.truncate(path, 0)
    # As it is while a dump runs, or after its host was killed.
    path = dump(until=until, force=True)
    assert main([command, str(path)]) == Exit.NOT_VALID
    assert "incomplete" in "".join(capsys.readouterr())


def test_a_torn_dump_names_its_pages(dump: Callable[..., Path], capsys: Capture) -> None:
    states = [SAVED] * 12
    states[3] = LOST
    path = str(dump(states=states, verdict="torn"))
    assert main(["info", path]) == Exit.NOT_VALID
    assert "0xc-0xf" in capsys.readouterr().out
    assert main(["verify", path]) == Exit.NOT_VALID
    out, err = capsys.readouterr()
    assert "torn" in out
    assert "0xc-0xf" in err


def test_verify_finds_one_changed_byte(dump: Callable[..., Path], capsys: Capture) -> None:
    path = dump()
    with open(path, "r+b") as file:
        where = file.read().index(MEMORY[: 8 * GRANULE]) + 5 * GRANULE + 4097
        file.seek(where)
        byte = file.read(1)[0]
        file.seek(where)
        file.write(bytes([byte ^ 1]))
    assert main(["info", str(path)]) == Exit.DONE
    assert main(["verify", str(path)]) == Exit.NOT_VALID
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("livedump: error: ")
    assert "0x14-0x17" in err


def test_a_raw_dump_with_its_sidecar_elsewhere(
    tmp_path: Path, dump: Callable[..., Path], capsys: Capture
) -> None:
    sidecar = str(tmp_path / "beside")
    path = str(dump(format="raw", sidecar=sidecar))
    assert main(["info", path]) == Exit.NOT_VALID
    assert main(["info", path, "--sidecar", sidecar]) == Exit.DONE
    assert main(["verify", path, "--sidecar", sidecar]) == Exit.DONE
