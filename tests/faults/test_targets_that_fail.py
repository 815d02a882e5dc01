# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that fill up or fail in the middle: the machine runs on, the dump says what it is, and
the next dump works."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aftermath import unharmed

from livedumpfs import Arena, InconsistentDump, LiveDump, open_dump
from livedumpfs.client import Client, InitOptions
from livedumpfs.dump import DumpSettings
from livedumpfs.dumpfile import LOST, NewFile, convert_dump
from livedumpfs.errors import InvalidDump, TargetError
from livedumpfs.units import PAGE_SIZE

MIB = 1 << 20


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(place)]
    if subprocess.run(command, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=300)


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
        assert live.finish(300, check=False) == "incomplete"
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
        assert live.finish(300, check=False) == "incomplete"
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


# ---------------------------------------------- calls that did not do what they are named for


def save(live: LiveDump, target: Path, settings: DumpSettings, check: bool) -> object:
    return live.save(target, settings, check=check)


def finish(live: LiveDump, target: Path, settings: DumpSettings, check: bool) -> object:
    live.init(target, settings)
    try:
        live.start()
        live.sweep()
        return live.finish(60, check=check)
    finally:
        live.release()


@pytest.mark.parametrize("call", [save, finish], ids=lambda call: call.__name__)
@pytest.mark.parametrize("format", ["elf", "kdump", "raw"])
def test_a_dump_that_is_not_consistent_raises(
    small_tmpfs: Path, format: str, call: Callable[..., object]
) -> None:
    target = small_tmpfs / "dump"
    how: dict[str, Any] = {"compression": "none"} if format == "kdump" else {}
    settings = DumpSettings(format=format, granule=16384, force=True, **how)  # type: ignore[arg-type]
    with Arena(32 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
        arena.live[:] = 5
        with pytest.raises(OSError, match="No space left on device") as caught:
            call(live, target, settings, True)
        error = caught.value
        assert isinstance(error, InconsistentDump)
        assert (error.errno, error.verdict) == (errno.ENOSPC, "incomplete")
        assert (error.target, error.failure) == (f"{target}.incomplete", live.failure)
        expect_told(error, live)
        assert call(live, target, settings, False) == live.verdict == "incomplete"


def expect_told(error: InconsistentDump, live: LiveDump) -> None:
    """What is on the target, in numbers and in the sentence; what is lost is nowhere "done"."""
    counters, progress = live.counters(), live.progress()
    assert 0 < counters.lost < counters.granules and counters.remaining == 0
    assert (error.lost, error.saved) == (counters.lost * 4, 8192 - counters.lost * 4)
    has = f"it has {counters.granules - counters.lost} of {counters.granules} granules"
    assert has in str(error) and "check=False" in str(error)
    assert progress.done == error.saved * PAGE_SIZE and progress.lost == error.lost * PAGE_SIZE
    assert progress.done + progress.lost == progress.total == 32 * MIB
    with open_dump(str(error.target)) as dump:
        missing = sum(end - first for first, end in dump.missing())
        assert missing >= error.lost * PAGE_SIZE, "the table may not have come out either"


def test_what_loads_and_converts_a_dump_that_is_not_consistent(
    small_tmpfs: Path, tmp_path: Path
) -> None:
    target = small_tmpfs / "dump.incomplete"
    with Arena(32 * MIB) as arena:
        a = arena.array("u1", 32 * MIB, name="a")
        a[:] = 5
        settings = DumpSettings(granule=16384, force=True)
        LiveDump(arena).save(small_tmpfs / "dump", settings, check=False)
    with open_dump(target) as dump:
        gone = sum(end - first for first, end in dump.missing())
        assert 8 * MIB < gone < 32 * MIB
        with pytest.raises(InconsistentDump, match=f"the dump on {target} is incomplete") as caught:
            Arena.load(dump)
        assert caught.value.lost == gone // PAGE_SIZE
        with Arena.load(dump, check=False) as loaded:
            assert (loaded.arrays["a"] == 5).sum() == 32 * MIB - gone
            assert (loaded.arrays["a"] == 0).sum() == gone
        image = tmp_path / "image"
        with pytest.raises(InvalidDump, match="is incomplete"), NewFile(str(image)) as out:
            convert_dump(dump, "raw", out)
        with NewFile(str(image)) as out:
            convert_dump(dump, "raw", out, check=False)
        assert image.read_bytes().count(b"\5") == 32 * MIB - gone


def test_a_client_is_told_too(small_tmpfs: Path, run_host: Any) -> None:
    host = run_host(ram="32MiB")
    target = str(small_tmpfs / "dump")
    with Client(host.device) as client:
        client.init(target, InitOptions(granule=16384, force=True))
        client.start()
        client.sweep()
        with pytest.raises(InconsistentDump, match="No space left on device") as caught:
            client.finish(60)
        status = client.finish(60, check=False)
        unfinished = f"{target}.incomplete"
        assert (caught.value.errno, caught.value.target) == (errno.ENOSPC, unfinished)
        assert caught.value.verdict == status.verdict.name.lower() == "incomplete"
        assert status.bytes_done + status.lost == status.bytes_total == 32 * MIB
        assert caught.value.lost * PAGE_SIZE == status.lost > 0
        line = host.read("livedump")
        assert f" done={status.bytes_done} " in line and f" lost={status.lost} " in line
        progress = client.stats()["progress"]
        assert (progress["done"], progress["lost"]) == (status.bytes_done, status.lost)
        client.release()
        after, stats = client.status(), client.stats()
        assert after.verdict == status.verdict and "No space left" in stats["reason"]
        assert stats["released"].endswith("in state FINISH")
        host.runs_on()
