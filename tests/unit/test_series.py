# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps with a date in their name: what they are called, and which of them go."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.errors import UsageError
from livedumpfs.targets import prune
from livedumpfs.targets.names import dated_like, incomplete_sidecar, with_date

MEMORY = bytes(range(256)) * 16


def test_the_date_is_local_and_sorts() -> None:
    found = with_date("/a{date}/vm-{date}.elf", seconds=0)
    assert re.fullmatch(r"/a\{date\}/vm-(19(69|70)-\d\d-\d\dT\d\d-\d\d-\d\d)\.elf", found)
    form = "vm-{date}.elf"
    names = [with_date(form, n, s) for s in (0, 1000, 1e9) for n in (0, 2, 10)]
    ages = [dated_like(name, form) for name in names]
    assert None not in ages and ages == sorted(ages)  # type: ignore[type-var]


@pytest.mark.parametrize(
    "name", ["vm-.elf", "vm-2026-11-28.elf", "xvm-2026-11-28T09-30-00.elf", "vm-{date}.elf",
             "vm-2026-11-28T09-30-00.elf.incomplete", "vm-2026-11-28T09-30-00xelf"],
)  # fmt: skip
def test_other_names_are_not_of_the_pattern(name: str) -> None:
    assert dated_like("vm-2026-11-28T09-30-00.elf", "vm-{date}.elf") == ("2026-11-28T09-30-00", 0)
    assert dated_like(name, "vm-{date}.elf") is None


def test_the_sidecar_of_an_unfinished_dump_is_at_its_usual_place() -> None:
    assert incomplete_sidecar("/a/dump.ldfs") == "/a/dump.incomplete.ldfs"
    assert incomplete_sidecar("/a/side") == "/a/side.incomplete"
    assert incomplete_sidecar("/a/.ldfs") == "/a/.ldfs.incomplete"


def day(folder: Path, number: int) -> Path:
    return folder / f"vm-2026-11-{number:02}T00-00-00.elf"


def test_only_finished_dumps_go_and_no_more_than_must(
    tmp_path: Path, write_dump: Callable[..., object]
) -> None:
    write_dump(day(tmp_path, 1), MEMORY, format="raw")
    write_dump(day(tmp_path, 2), MEMORY)
    write_dump(day(tmp_path, 3), MEMORY, verdict="torn")
    write_dump(day(tmp_path, 4), MEMORY, until="started")
    day(tmp_path, 5).write_text("a letter\n")
    day(tmp_path, 6).mkdir()
    write_dump(day(tmp_path, 7), MEMORY)
    write_dump(day(tmp_path, 8), MEMORY, verdict="torn")
    write_dump(day(tmp_path, 9), MEMORY)
    write_dump(tmp_path / "vm-old.elf", MEMORY)
    (tmp_path / "vm-2026-11-02T00-00-00.elf.ldfs").write_text("no sidecar\n")
    pattern = str(tmp_path / "vm-{date}.elf")
    before = {one.name for one in tmp_path.iterdir()}
    assert prune(pattern, 4) == []
    assert {one.name for one in tmp_path.iterdir()} == before
    assert prune(pattern, 3) == [str(day(tmp_path, 1))]
    assert prune(pattern, 2) == [str(day(tmp_path, n)) for n in (2, 3)]
    gone = {day(tmp_path, n).name for n in (1, 2, 3)} | {f"{day(tmp_path, 1).name}.ldfs"}
    assert {one.name for one in tmp_path.iterdir()} == before - gone


def test_a_dump_that_is_written_stays(tmp_path: Path, write_dump: Callable[..., object]) -> None:
    for number in (1, 2):
        write_dump(day(tmp_path, number), MEMORY)
    with open(day(tmp_path, 1)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert prune(str(tmp_path / "vm-{date}.elf"), 1) == []
    assert prune(str(tmp_path / "vm-{date}.elf"), 1) == [str(day(tmp_path, 1))]


@pytest.mark.parametrize(("pattern", "keep"), [("vm.elf", 1), ("{date}/vm", 1), ("{date}", 0)])
def test_what_is_no_series(pattern: str, keep: int) -> None:
    with pytest.raises(UsageError):
        prune(pattern, keep)


def test_each_dump_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Also within one second, and beside what was broken off."""
    with Arena(1 << 20) as arena, LiveDump(arena) as live:
        for number in range(3):
            arena.live[:] = number
            assert live.save(tmp_path / "vm-{date}") == "consistent"
            with open_dump(str(live.target_path)) as dump:
                assert dump.read_arena(0, 1) == bytes([number])
        live.init(tmp_path / "vm-{date}")
        live.start()
        live.release()
        assert str(live.target_path).endswith(".incomplete")
        assert live.save(tmp_path / "vm-{date}") == "consistent"
    assert len(os.listdir(tmp_path)) == 5


@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC"])
def test_the_newest_dump_stays_when_the_clock_goes_back(
    tmp_path: Path, write_dump: Callable[..., object], monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    """02:10 comes after 02:40, in the night when summer time ends."""
    pattern, night = str(tmp_path / "vm-{date}.elf"), 1792888800  # 2026-10-25, 00:40 UTC
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        times = [night, night + 1800, night + 3600, night + 7200]
        names = [Path(with_date(pattern, seconds=one)) for one in times]
    finally:
        monkeypatch.undo()
        time.tzset()
    for written, name in zip(times[:2], names[:2], strict=True):
        write_dump(name, MEMORY)
        os.utime(name, (written, written))
    gone = prune(pattern, 1)
    assert gone == ([] if zone == "Europe/Berlin" else [str(names[0])])
    # And what stayed too long goes when two newer ones leave no doubt.
    for written, name in zip(times[2:], names[2:], strict=True):
        write_dump(name, MEMORY)
        os.utime(name, (written, written))
        prune(pattern, 1)
        assert name.exists()
    assert [one.name for one in tmp_path.iterdir()] == [names[3].name]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_dumps_of_another_user_do_not_count(
    tmp_path: Path, write_dump: Callable[..., object]
) -> None:
    for number in range(1, 5):
        write_dump(day(tmp_path, number), MEMORY)
    os.chown(day(tmp_path, 4), 54321, 54321)
    assert prune(str(tmp_path / "vm-{date}.elf"), 1) == [str(day(tmp_path, n)) for n in (1, 2)]
    assert day(tmp_path, 3).exists() and day(tmp_path, 4).exists()
