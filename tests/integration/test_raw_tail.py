# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw dumps whose granule table lies behind the memory, on files and devices, and other dumps."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.cli.main import main
from livedumpfs.cli.outcome import Exit
from livedumpfs.cli.proof import prove_dump
from livedumpfs.dump import DumpSettings
from livedumpfs.errors import InvalidDump, TargetError

MIB = 1 << 20
SIZE = 4 * MIB
TAIL = DumpSettings(format="raw", table="tail")
LoopMaker = Callable[..., str]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sidecar files of devices would lie."""
    folder = tmp_path / "state"
    monkeypatch.setenv("LIVEDUMPFS_STATE", str(folder))
    return folder


@pytest.fixture
def live() -> Iterator[tuple[LiveDump, np.ndarray]]:
    """An arena with a pattern, the second half holes."""
    with Arena(SIZE) as arena, LiveDump(arena) as dump:
        values = arena.array("u4", SIZE // 4, name="values")
        values[: SIZE // 8] = np.arange(SIZE // 8, dtype="u4") + 1
        yield dump, values


def save(live: LiveDump, target: str | Path, settings: DumpSettings, values: np.ndarray) -> bytes:
    """A dump while the memory is written; what it must contain."""
    before = bytes(values)
    live.init(target, replace(settings, force=True))
    live.start()
    values[::1024] += 1
    live.sweep()
    assert live.finish(300) == "consistent"
    live.release()
    return before


def check(target: str | Path, memory: bytes, format: str = "raw") -> None:
    with open_dump(target) as dump:
        assert (dump.format, dump.verdict, dump.sidecar) == (format, "consistent", None)
        assert dump.read_arena(0, SIZE) == memory
        assert prove_dump(dump).ok


@pytest.mark.parametrize("device", [False, True])
def test_it_is_one_dump_by_itself(
    device: bool, live: Any, state: Path, tmp_path: Path, loop_device: LoopMaker
) -> None:
    """Memory from offset 0 on; found without a sidecar, which there is none of."""
    target = loop_device(16 * MIB + 512) if device else str(tmp_path / "dump")
    memory = save(live[0], target, TAIL, live[1])
    with open(target, "rb") as file:
        assert file.read(SIZE) == memory
    assert not state.exists()
    assert not os.path.exists(f"{target}.ldfs")
    check(target, memory)
    assert main(["verify", target]) == Exit.DONE
    # Once more over itself.
    check(target, memory := save(live[0], target, TAIL, live[1]))


def test_a_file_with_it_can_be_carried_away(live: Any, state: Path, tmp_path: Path) -> None:
    memory = save(live[0], tmp_path / "dump", TAIL, live[1])
    (tmp_path / "dump").rename(tmp_path / "elsewhere")
    check(tmp_path / "elsewhere", memory)


@pytest.mark.parametrize("first", ["elf", "raw", "tail", "kdump"])
@pytest.mark.parametrize("second", ["elf", "raw", "tail", "kdump"])
def test_the_last_dump_on_a_device_is_the_one_that_is_found(
    first: str, second: str, live: Any, state: Path, loop_device: LoopMaker
) -> None:
    """And it stays there unless that is asked for."""
    device = loop_device(16 * MIB)
    memory = b""
    for layout in (first, second):
        settings = TAIL if layout == "tail" else DumpSettings(format=layout)
        if memory:
            with pytest.raises(TargetError, match="it holds a consistent dump") as caught:
                live[0].init(device, settings)
            assert caught.value.errno == errno.EEXIST
            with open_dump(device) as dump:
                assert dump.read_arena(0, SIZE) == memory and prove_dump(dump).ok
        memory = save(live[0], device, settings, live[1])
    with open_dump(device) as dump:
        assert dump.format == second.replace("tail", "raw")
        assert (dump.sidecar is None) == (second != "raw")
        assert dump.read_arena(0, SIZE) == memory
        assert prove_dump(dump).ok


@pytest.mark.parametrize("first", ["elf", "raw", "kdump"])
def test_a_broken_off_one_leaves_no_older_dump_behind(
    first: str, live: Any, state: Path, loop_device: LoopMaker
) -> None:
    dump, values = live
    device = loop_device(16 * MIB)
    save(dump, device, DumpSettings(format=first), values)
    dump.init(device, replace(TAIL, force=True))
    dump.release()
    with open_dump(device) as found:
        assert (found.format, found.verdict, found.sidecar) == ("raw", "incomplete", None)


@pytest.mark.parametrize("second", ["elf", "raw", "kdump"])
def test_a_broken_off_dump_does_not_leave_the_tail_of_an_older_one(
    second: str, live: Any, state: Path, loop_device: LoopMaker
) -> None:
    dump, values = live
    device = loop_device(16 * MIB)
    save(dump, device, TAIL, values)
    dump.init(device, DumpSettings(format=second, force=True))
    dump.release()
    with open_dump(device) as found:
        assert (found.format, found.verdict) == (second, "incomplete")
    dump.init(device, TAIL)  # what was broken off is in no later dump's way
    dump.release()


def test_a_sidecar_of_a_dump_that_has_gone_protects_nothing(
    live: Any, state: Path, loop_device: LoopMaker
) -> None:
    """Of a loop device with the same number, say: the sidecar names that alone."""
    dump, values = live
    device = loop_device(16 * MIB)
    save(dump, device, DumpSettings(format="raw"), values)
    assert list(state.iterdir())
    for byte in (b"\0", b"x"):
        with open(device, "r+b") as file:
            file.write(byte * SIZE)
        dump.init(device, DumpSettings(format="kdump"))
        dump.release()
        save(dump, device, DumpSettings(format="raw"), values)


def test_a_torn_dump_on_a_device_is_kept_too(
    live: Any, state: Path, loop_device: LoopMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump, values = live
    device = loop_device(16 * MIB)
    monkeypatch.setattr("livedumpfs.dump.run.judge", lambda _: "torn")
    values[0] = 1
    assert dump.save(device, check=False) == "torn"
    with pytest.raises(TargetError, match="it holds a torn dump"):
        dump.init(device)


def test_a_device_that_is_too_small_keeps_what_it_has(
    live: Any, state: Path, loop_device: LoopMaker
) -> None:
    dump, values = live
    device = loop_device(SIZE + 64 * 1024)
    memory = save(dump, device, DumpSettings(format="raw"), values)
    with pytest.raises(TargetError, match="the device has") as caught:
        dump.init(device, TAIL)
    assert caught.value.errno == errno.ENOSPC
    with open_dump(device) as found:
        assert found.read_arena(0, SIZE) == memory


def test_a_damaged_tail_is_one_clear_error(live: Any, state: Path, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    save(live[0], path, TAIL, live[1])
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size - 4096 + 70)
        file.write(b"\xff\xff")
    with pytest.raises(InvalidDump):
        open_dump(path)
    with open(path, "r+b") as file:
        file.truncate(size - 4096)
    with pytest.raises(InvalidDump):
        open_dump(path)


def test_info_tells_it(
    live: Any, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "dump")
    save(live[0], path, TAIL, live[1])
    assert main(["info", path, "--json"]) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["sidecar"], told["verdict"]) == ("raw", None, "consistent")
    kinds = told["kinds"]
    assert sum(kind["granules"] for kind in kinds.values()) == sum(told["granules"].values())
    assert kinds["fault"]["granules"] > 0 and kinds["lost"]["granules"] == 0
