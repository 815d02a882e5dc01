# SPDX-License-Identifier: GPL-2.0-or-later
"""Saves of arrays that fail or are killed in the middle: what is left says what it is, the group
that was there holds, and the next save works."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aftermath import unharmed

from livedumpfs import Arena, LiveDump, open_arrays
from livedumpfs.errors import InvalidDump, LivedumpError, TargetError
from livedumpfs.named import nodes
from tests.fixtures.program_files import program_command

MIB = 1 << 20
KILLS = int(os.environ.get("LIVEDUMP_ARRAY_KILLS", "3"))
ENDS = ["state.zarr", "state.icechunk"]


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A tmpfs, and a function that remounts it."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    if subprocess.run(command, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")

    def again(options: str) -> None:
        command = ["mount", "-o", f"remount,{options}", str(place)]
        subprocess.run(command, check=True, timeout=300)

    try:
        yield again
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=300)


@pytest.mark.parametrize("name", ENDS)
def test_a_disk_that_fills_up(name: str, tmp_path: Path) -> None:
    place = tmp_path / "small"
    with mounted(place, "size=16m") as remount, Arena("64MiB") as arena:
        a = arena.array("u1", (24 * MIB,), name="a")
        a[: 4 * MIB] = 3
        path = place / name
        live = LiveDump(arena)
        assert live.save(path) == "consistent"
        a[:] = np.random.default_rng(1).integers(0, 256, len(a), dtype=np.uint8)
        with pytest.raises(TargetError, match=f"cannot write {path}: .*[Nn]o space") as raised:
            live.save(path)
        assert raised.value.errno in (errno.ENOSPC, errno.EIO)
        assert live.state.name == "UNINIT"
        with unharmed(live):
            pass
        with Arena.load(path) as again:
            assert (again.arrays["a"][: 4 * MIB] == 3).all()
            assert not again.arrays["a"][4 * MIB :].any()
        assert [one.name for one in place.iterdir()] == [name]
        remount("size=64m")
        assert live.save(path) == "consistent"
        with Arena.load(path) as again:
            assert (again.arrays["a"] == a).all()


@pytest.mark.parametrize("name", ENDS)
def test_a_file_system_that_is_read_only(name: str, tmp_path: Path) -> None:
    place = tmp_path / "small"
    with mounted(place, "size=16m") as remount, Arena("8MiB") as arena:
        arena.array("u1", (MIB,), name="a")[:] = 3
        LiveDump(arena).save(place / name)
        remount("ro")
        with pytest.raises(TargetError, match="Read-only file system"):
            LiveDump(arena).save(place / f"other.{name}")
        with pytest.raises(TargetError, match="Read-only file system"):
            LiveDump(arena).save(place / name)
        with Arena.load(place / name) as again:
            assert (again.arrays["a"] == 3).all()


def killed(path: Path, first: int, after: float) -> int:
    """The last number of which the program said that it is saved. It is killed `after` so many
    seconds behind its first one."""
    command = program_command(__file__, "saves_arrays.py", path, str(first))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = [process.stdout.readline()]
        time.sleep(after)
        process.kill()
        said += process.stdout.readlines()
    whole = [int(one) for one in said if one.endswith("\n")]
    assert whole, (said, process.returncode)
    return whole[-1]


@pytest.mark.parametrize("name", ENDS)
def test_one_that_is_killed(name: str, tmp_path: Path) -> None:
    path, half = tmp_path / name, tmp_path / f"{name}.incomplete"
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    last = 0
    for _ in range(KILLS):
        last = killed(path, last + 1, chance.uniform(0.0, 0.3))
        with Arena.load(path) as again:
            found = int(again.arrays["b"][0])
            assert found in (last, last + 1)
            assert all((one == found).all() for one in again.arrays.values())
        last = found
        if half.exists():
            with pytest.raises(LivedumpError):
                expect_not_of_before(half, last)
    with Arena("32MiB") as arena:
        arena.array("u8", (10,), name="b")[:] = 7
        assert LiveDump(arena).save(path) == "consistent"
    assert [one.name for one in tmp_path.iterdir()] == [name]


def expect_not_of_before(half: Path, last: int) -> None:
    """What a killed save leaves beside the group is refused, or is a whole group: its own, which
    did not get the name any more, or the one before it, which was to be taken away."""
    with open_arrays(half) as found:
        b = found.array("b")
        assert found.verdict == "consistent" and (b == b[0]).all() and b[0] <= last + 1
        assert (found.array("a") == b[0]).all()
    raise InvalidDump("it is whole")


def test_nothing_of_it_is_left_where_start_fails(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    with Arena("8MiB") as arena:
        arena.array("u1", (MIB,), name="a")[:] = 3
        live = LiveDump(arena, quiesce=fail)
        with pytest.raises(OSError, match="busy"):
            live.save(tmp_path / "state.zarr")
        assert live.state.name == "UNINIT" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ENDS)
def test_one_that_is_interrupted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
) -> None:
    """The program is at full speed again before the threads have ended, of which one still
    writes."""
    del small_chunks
    real, inside, end = nodes.as_stored, threading.Event(), threading.Event()
    released: list[bool] = []

    def wait(memory: Any) -> Any:
        inside.set()
        assert end.wait(300)
        return real(memory)

    with Arena("8MiB") as arena:
        a = arena.array("u1", (4 * MIB,), name="a")
        a[:] = 3
        live = LiveDump(arena)
        assert live.save(tmp_path / name) == "consistent"
        a[:] = 4

        def interrupt() -> None:
            assert inside.wait(300)
            os.kill(os.getpid(), signal.SIGINT)
            until = time.monotonic() + 300
            while live.state.name != "UNINIT" and time.monotonic() < until:
                time.sleep(0.01)
            released.append(live.state.name == "UNINIT" and not end.is_set())
            end.set()

        monkeypatch.setattr(nodes, "as_stored", wait)
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            live.save(tmp_path / name)
        thread.join(300)
        assert released == [True]
        monkeypatch.undo()
        with Arena.load(tmp_path / name) as again:
            assert (again.arrays["a"] == 3).all()
        assert [one.name for one in tmp_path.iterdir()] == [name]
        assert live.save(tmp_path / name) == "consistent"
