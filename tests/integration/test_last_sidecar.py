# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of two sidecar files is that of the last raw dump: after a kill between two renames, at
another boot, and beside what a dump left that went long ago."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.cli.proof import prove_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.formats import superblock
from livedumpfs.formats.superblock import Superblock

SIZE = 2 << 20
DEADLINE_S = 300.0


@pytest.fixture
def live() -> Iterator[LiveDump]:
    with Arena(SIZE) as arena, LiveDump(arena) as made:
        yield made


def settings(format: str = "raw") -> DumpSettings:
    return DumpSettings(format=format, granule=65536)


def dump(live: LiveDump, path: Path, value: int) -> None:
    """The first granules are all `value`, the others always the same."""
    live.machine.arena.live[:] = 1
    live.machine.arena.live[: SIZE // 8] = value
    live.init(path, settings())
    try:
        live.start()
        live.sweep()
        assert live.finish(DEADLINE_S) == "consistent"
    finally:
        live.release()


def change(path: Path, **fields: int) -> None:
    with path.open("r+b") as file:
        block: Superblock = superblock.parse(file.read(superblock.SIZE))
        file.seek(0)
        file.write(replace(block, **fields).pack())  # type: ignore[arg-type]


def holds(path: Path, value: int) -> bool:
    with open_dump(path) as found:
        assert found.verdict == "consistent"
        return prove_dump(found).ok and found.read_arena(0, 1) == bytes([value])


def killed_between(live: LiveDump, target: Path) -> None:
    """The new dump has its name, and its sidecar still that of an unfinished one."""
    dump(live, target, 2)
    old = Path(f"{target}.old")
    os.rename(target, old)
    os.rename(f"{target}.ldfs", f"{old}.ldfs")
    dump(live, target, 3)
    os.rename(f"{target}.ldfs", f"{target}.incomplete.ldfs")
    os.rename(f"{old}.ldfs", f"{target}.ldfs")
    for one in (f"{target}.ldfs", f"{target}.incomplete.ldfs"):  # the next boot, other numbers
        change(Path(one), target_device=os.stat(one).st_dev + 1)


def test_an_old_sidecar_vouches_for_no_new_dump_at_another_boot(
    live: LiveDump, tmp_path: Path
) -> None:
    killed_between(live, tmp_path / "dump")
    assert holds(tmp_path / "dump", 3)


@pytest.mark.parametrize("format", ["elf", "raw"])
def test_a_sidecar_gets_its_name_at_another_boot(
    live: LiveDump, tmp_path: Path, format: str
) -> None:
    """By the next INIT, whose dump is broken off."""
    target = tmp_path / "dump"
    killed_between(live, target)
    live.init(target, replace(settings(format), force=True))
    live.start()
    live.release()
    assert holds(target, 3)


@pytest.mark.parametrize("format", ["elf", "raw"])
def test_the_sidecar_of_the_last_dump_stays_beside_one_that_names_its_inode(
    live: LiveDump, tmp_path: Path, format: str
) -> None:
    """A dump that was broken off, and removed without its sidecar; its inode was given again."""
    target, left = tmp_path / "dump", tmp_path / "left"
    live.init(left, settings())
    live.start()
    live.release()
    dump(live, target, 2)
    stale = tmp_path / "dump.incomplete.ldfs"
    os.rename(tmp_path / "left.incomplete.ldfs", stale)
    status = target.stat()
    change(stale, target_device=status.st_dev, target_inode=status.st_ino)
    assert holds(target, 2)
    live.init(target, settings(format))
    live.release()
    assert holds(target, 2)
