# SPDX-License-Identifier: GPL-2.0-or-later
"""The target is taken away during a dump: unlinked, replaced, cut off, detached, its file system
unmounted. The dump never says of a target what is not on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aftermath import DEADLINE_S, unharmed, wait_for

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.cli.proof import prove_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import InvalidDump

MIB = 1 << 20
SIZE = 16 * MIB
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="block devices and mounts need root")


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(place)]
    subprocess.run(command, check=True, timeout=300)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=False, timeout=300, capture_output=True)


@pytest.fixture
def live() -> Iterator[LiveDump]:
    with Arena(SIZE) as arena, LiveDump(arena) as made:
        arena.live[:] = 5
        yield made


def begin(live: LiveDump, target: Path | str, **how: object) -> None:
    """Some of it is on the target, and no more comes before go_on()."""
    memory = live.machine.arena.live
    memory[:] = 5
    settings = DumpSettings(granule=16384, force=True, **how)  # type: ignore[arg-type]
    live.init(target, settings)
    live.start()
    memory[: 4 * MIB : 4096] = 6
    wait_for(lambda: live.counters().bytes_written > 2 * MIB, live.counters)


def unfinished(target: Path) -> Path:
    """Where it lies until it is sealed."""
    return target.with_name(f"{target.name}.incomplete")


def go_on(live: LiveDump) -> None:
    live.sweep()
    live.machine.arena.live[::4096] = 7


def test_a_file_that_is_removed_is_told(live: LiveDump, tmp_path: Path) -> None:
    """It would be gone with the last descriptor: such a dump is not kept, and does not say so."""
    target = tmp_path / "dump"
    with unharmed(live):
        begin(live, target)
        held = os.open(unfinished(target), os.O_RDONLY)
        unfinished(target).unlink()
        go_on(live)
        assert live.finish(DEADLINE_S, check=False) == "incomplete"
        assert "it was removed during the dump" in str(live.failure), live.failure
        live.release()
        try:
            with open_dump(f"/proc/self/fd/{held}") as dump:
                assert dump.verdict == "incomplete"
                assert dump.read_arena(0, SIZE).count(5) == SIZE
        finally:
            os.close(held)


def test_a_sidecar_that_is_removed_is_told(live: LiveDump, tmp_path: Path) -> None:
    with unharmed(live):
        begin(live, tmp_path / "dump", format="raw")
        (sidecar,) = tmp_path.glob("dump*.ldfs")
        sidecar.unlink()
        go_on(live)
        assert live.finish(DEADLINE_S, check=False) == "incomplete"
        assert str(sidecar) in str(live.failure), live.failure


def test_a_file_that_is_renamed_is_kept(live: LiveDump, tmp_path: Path) -> None:
    """And what takes its old name is not touched."""
    target = tmp_path / "dump"
    with unharmed(live):
        begin(live, target)
        unfinished(target).rename(tmp_path / "moved")
        target.write_text("another program's\n")
        go_on(live)
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        assert f"{unfinished(target)} was moved during the dump" in str(live.failure)
        live.release()
        assert target.read_text() == "another program's\n"
        with open_dump(tmp_path / "moved") as dump:
            assert dump.verdict == "consistent"
            assert dump.read_arena(0, SIZE).count(5) == SIZE


@pytest.mark.parametrize("format", ["elf", "kdump", "raw"])
@pytest.mark.parametrize("left", [0, MIB])
def test_a_file_that_somebody_cuts_off(
    live: LiveDump, tmp_path: Path, format: str, left: int
) -> None:
    """What is written after that makes holes of what is gone. The writer cannot know; a reader
    does: the header is gone, or a granule is not what its checksum says."""
    target = tmp_path / "dump"
    with unharmed(live):
        begin(live, target, format=format, compression="none" if format == "kdump" else "zstd")
        os.truncate(unfinished(target), left)
        go_on(live)
        live.finish(DEADLINE_S, check=False)
        live.release()
        try:
            with open_dump(target) as dump:
                found = prove_dump(dump)
                assert not found.ok, "a dump with a hole in it passes"
                print(found.problems)
        except InvalidDump as error:
            print(error)


def losetup(*arguments: str) -> str:
    done = subprocess.run(
        ["losetup", *arguments], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


@as_root
def test_a_device_that_is_detached(
    live: LiveDump, tmp_path: Path, loop_device: Callable[..., str]
) -> None:
    """The kernel keeps it for a process that has it open: `losetup -d` waits, and the dump is
    whole."""
    device = loop_device(32 * MIB)
    with unharmed(live):
        begin(live, device)
        losetup("-d", device)
        go_on(live)
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        held = os.open(device, os.O_RDONLY)
        try:
            live.release()
            with open_dump(f"/proc/self/fd/{held}") as dump:
                assert dump.verdict == "consistent"
                assert dump.read_arena(0, SIZE).count(5) == SIZE
        finally:
            os.close(held)


@as_root
@pytest.mark.parametrize("left", [0, 4 * MIB])
def test_a_device_whose_backing_file_is_cut_off(
    live: LiveDump, tmp_path: Path, loop_device: Callable[..., str], left: int
) -> None:
    """It gets smaller under us: writes behind its end fail."""
    device = loop_device(32 * MIB)
    (backing,) = tmp_path.glob("loop-*")
    with unharmed(live):
        begin(live, device)
        os.truncate(backing, left)
        losetup("--set-capacity", device)
        go_on(live)
        assert live.finish(DEADLINE_S, check=False) in ("incomplete", "torn"), live.counters()
        assert live.failure and device in live.failure
        live.release()
        with pytest.raises(InvalidDump, match="ends within" if left else "not a valid dump"):
            open_dump(device)


@as_root
def test_a_file_system_that_is_unmounted_under_it(live: LiveDump, small_tmpfs: Path) -> None:
    """Lazily, or by the user's hand in /media: the descriptor keeps it until the dump is done."""
    target = small_tmpfs / "dump"
    with unharmed(live):
        begin(live, target)
        held = os.open(unfinished(target), os.O_RDONLY)
        subprocess.run(["umount", "-l", str(small_tmpfs)], check=True, timeout=300)
        assert not target.exists()
        go_on(live)
        assert live.finish(DEADLINE_S) == "consistent", live.failure
        live.release()
        try:
            with open_dump(f"/proc/self/fd/{held}") as dump:
                assert dump.verdict == "consistent"
        finally:
            os.close(held)
