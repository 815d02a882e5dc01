# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that fill up or fail in the middle: the machine runs on, the dump says what it is, and
the next dump works."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aftermath import unharmed

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import TargetError
from livedumpfs.snapshot import LOST
from livedumpfs.units import PAGE_SIZE

MIB = 1 << 20


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)]
    if subprocess.run(command, capture_output=True, timeout=30, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=30)


def break_on(target: Path | str, other: Path, **how: Any) -> None:
    """Forced: that there is no room is known before."""
    place = f"{target}.incomplete" if isinstance(target, Path) else target
    with Arena(32 * MIB) as arena, LiveDump(arena) as live, ExitStack() as stack:
        a = arena.array("u1", 32 * MIB, name="a")
        stack.enter_context(unharmed(live))
        a[:] = 5
        live.init(target, DumpSettings(granule=16384, pool=MIB, force=True, **how))
        live.start()
        a[::PAGE_SIZE] = 6  # through a small pool onto a target that is too small: must not hang
        live.sweep()
        assert live.finish(60) == "incomplete"
        assert live.counters().lost > 0 and live.counters().remaining == 0
        assert live.failure and str(target) in live.failure
        assert live.counters().failure.error in (errno.ENOSPC, errno.EIO)
        a[:] = 7
        live.release()
        with open_dump(place) as dump:
            assert dump.verdict == "incomplete" and dump.pfn_ranges(LOST)
            good = dump.entries["state"] != LOST
            assert good.sum() > 100, "what was saved before it was full"
            for granule in good.nonzero()[0].tolist():
                assert dump.read_arena(granule * 16384, 16384).count(5) == 16384
        assert live.save(other) == "consistent"
        with open_dump(other) as dump:
            assert (dump.array("a") == 7).all()


@pytest.mark.parametrize("format", ["elf", "kdump"])
def test_a_file_on_a_full_file_system(small_tmpfs: Path, tmp_path: Path, format: str) -> None:
    how = {"compression": "none"} if format == "kdump" else {}
    break_on(small_tmpfs / "dump", tmp_path / "next", format=format, **how)


def test_a_kdump_on_a_device_that_is_too_small(tmp_path: Path, loop_device: object) -> None:
    """Its size is not known before."""
    device = loop_device(12 * MIB)  # type: ignore[operator]
    break_on(device, tmp_path / "next", format="kdump", compression="none")


@pytest.mark.parametrize("format", ["elf", "kdump", "raw"])
def test_no_room_even_for_the_table_is_told_at_init(
    small_tmpfs: Path, tmp_path: Path, format: str
) -> None:
    """Not when the memory is lost."""
    (small_tmpfs / "rest").write_bytes(bytes(16 * MIB - 100_000))
    with Arena(32 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
        with pytest.raises(TargetError, match="No space left on device") as caught:
            live.init(small_tmpfs / "dump", DumpSettings(format=format, force=True))
        assert caught.value.errno == errno.ENOSPC
        assert {p.name for p in small_tmpfs.iterdir()} == {"rest"}, "no part of a description"


def test_a_loop_device_on_a_full_file_system(
    small_tmpfs: Path, tmp_path: Path, loop_device: object
) -> None:
    """The device takes what its page cache takes; the error comes with the sync, as EIO or
    ENOSPC."""
    device = loop_device(64 * MIB, directory=small_tmpfs)  # type: ignore[operator]
    with Arena(32 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
        a = arena.array("u1", 32 * MIB, name="a")
        a[:] = 5
        live.init(device)
        live.start()
        a[::PAGE_SIZE] = 6
        live.sweep()
        assert live.finish(60) == "incomplete"
        assert live.failure and device in live.failure
        a[:] = 7
        live.release()
        with open_dump(device) as dump:
            assert dump.verdict == "incomplete"


def test_a_device_that_is_too_small_is_refused_at_init(loop_device: object) -> None:
    device = loop_device(8 * MIB)  # type: ignore[operator]
    Path(device).write_bytes(b"kept")
    with Arena(32 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
        with pytest.raises(TargetError) as caught:
            live.init(device)
        assert caught.value.errno == errno.ENOSPC
        assert Path(device).read_bytes()[:4] == b"kept"
