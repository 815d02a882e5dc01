# SPDX-License-Identifier: GPL-2.0-or-later
"""Arrays of a dump: right, writable, and without a second copy of their memory."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.dumpfile import open_dump
from livedumpfs.formats import MachineInfo, MemoryRange, Plan
from livedumpfs.formats.table import HOLE, LOST, SAVED
from tests.fixtures.program_files import program_command

MIB = 1 << 20
PAGE = 4096
SIZE = 4 * MIB
WriteDump = Callable[..., Plan]


def pattern(size: int) -> npt.NDArray[np.uint64]:
    return np.arange(1, size // 8 + 1, dtype=np.uint64)


def described(offset: int, size: int, dtype: Any = "<u8") -> dict[str, object]:
    count = size // np.dtype(dtype).itemsize
    return {"arrays": [{"name": "a", "dtype": dtype, "shape": [count], "offset": offset}]}


def is_mapped(array: npt.NDArray[Any]) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


@pytest.mark.parametrize("offset", [0, PAGE, 64, 3 * PAGE + 8])
@pytest.mark.parametrize(("format", "mapped"), [("elf", True), ("raw", True), ("kdump", False)])
def test_an_array_is_right_and_its_owners(
    format: str, mapped: bool, offset: int, tmp_path: Path, write_dump: WriteDump
) -> None:
    memory, size = pattern(SIZE), 2 * MIB + 8 * 5
    path = tmp_path / "dump"
    write_dump(path, memory.tobytes(), format=format, granule=65536, meta=described(offset, size))
    before = path.read_bytes()
    with open_dump(path) as dump:
        found = dump.array("a")
    expected = memory[offset // 8 :][: size // 8]
    assert (found == expected).all(), "also when the dump is closed"
    assert is_mapped(found) == mapped
    found[:] = 7
    assert (found == 7).all()
    assert path.read_bytes() == before
    with open_dump(path) as dump:
        assert (dump.array("a") == expected).all()


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_granules_of_zeros_are_zeros_whatever_lies_there(
    format: str, tmp_path: Path, write_dump: WriteDump
) -> None:
    memory = pattern(SIZE).tobytes()
    states = [HOLE if i in (0, 7, 8, 63) else SAVED for i in range(64)]
    path = tmp_path / "dump"
    plan = write_dump(
        path, memory, format=format, granule=65536, states=states, meta=described(0, SIZE)
    )
    if format != "kdump":
        with path.open("r+b") as file:  # as another program would see it
            file.seek(plan.extents[0].target_offset + 7 * 65536)
            file.write(b"\1" * 65536)
    with open_dump(path) as dump:
        found = dump.array("a").view(np.uint8).reshape(64, 65536)
        expected = np.frombuffer(memory, np.uint8).reshape(64, 65536)
        for i, state in enumerate(states):
            assert not found[i].any() if state == HOLE else (found[i] == expected[i]).all(), i


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_an_array_that_is_not_all_there_is_an_error(
    format: str, tmp_path: Path, write_dump: WriteDump
) -> None:
    states = [LOST if i == 20 else SAVED for i in range(64)]
    write_dump(
        tmp_path / "dump", pattern(SIZE).tobytes(), format=format, granule=65536, states=states,
        verdict="torn", meta=described(64, 2 * MIB),
    )  # fmt: skip
    with open_dump(tmp_path / "dump") as dump:
        with pytest.raises(OSError, match=f"page {20 * 16:#x} of .* is lost") as caught:
            dump.array("a")
        assert caught.value.errno == errno.EIO
        with pytest.raises(KeyError):
            dump.array("b")


def test_an_array_in_two_places_is_read(tmp_path: Path, write_dump: WriteDump) -> None:
    """Of a raw dump of a machine with a gap in the middle of it; ranges that touch have none."""
    memory = pattern(SIZE)
    for gap in (0, 16 * PAGE):
        ranges = (MemoryRange(0, 2 * MIB, 0), MemoryRange(2 * MIB + gap, 2 * MIB, 2 * MIB))
        path = tmp_path / f"dump-{gap}"
        write_dump(
            path, memory.tobytes(), format="raw", granule=65536,
            machine=MachineInfo("x", memory_map=ranges), meta=described(MIB, 2 * MIB),
        )  # fmt: skip
        with open_dump(path) as dump:
            found = dump.array("a")
        assert (found == memory[MIB // 8 :][: 2 * MIB // 8]).all()
        assert is_mapped(found) == (gap == 0)


@pytest.mark.parametrize("format", ["elf", "raw", "kdump"])
def test_small_and_odd_arrays(format: str, tmp_path: Path) -> None:
    with Arena(MIB) as arena, LiveDump(arena) as dump:
        record = np.dtype([("x", "<i4"), ("y", "<f8", (2,))])
        arena.array("u1", 3, name="bytes")[:] = [1, 2, 3]
        arena.array("f8", (), name="one")[()] = 2.5
        arena.array(record, (4,), name="records")["y"] = 7
        arena.array("u8", (0, 5), name="nothing")
        assert dump.save(tmp_path / "dump", DumpSettings(format=format)) == "consistent"
    with open_dump(tmp_path / "dump") as found:
        assert found.array("bytes").tolist() == [1, 2, 3]
        assert found.array("one").shape == () and found.array("one") == 2.5
        assert found.array("records").dtype == record
        assert (found.array("records")["y"] == 7).all()
        assert found.array("nothing").shape == (0, 5)


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 MiB in a dump of each format."""
    folder, size = tmp_path_factory.mktemp("dumps"), 64 * MIB
    with Arena(size + MIB) as arena, LiveDump(arena) as dump:
        arena.array("u8", size // 8, name="a")[:] = pattern(size)
        arena.array("u8", 8, name="small")[:] = 1
        for format in ("elf", "raw", "kdump"):
            dump.save(folder / format, DumpSettings(format=format))
    return folder


@pytest.mark.parametrize(
    ("format", "what", "most"),
    [
        ("elf", "look", 0.5), ("raw", "look", 0.5), ("kdump", "read", 1.5),
        ("elf", "read", 1.5), ("elf", "arena", 1.5), ("kdump", "arena", 1.5),
    ],
)  # fmt: skip
def test_peak_memory(format: str, what: str, most: float, dumps: Path) -> None:
    """In parts of the array's size: twice it would be 2."""
    done = subprocess.run(
        program_command(__file__, "growth.py", what, dumps / format, str(64 * MIB)),
        capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < most


def test_a_hole_needs_no_memory_of_its_own(tmp_path: Path, write_dump: WriteDump) -> None:
    write_dump(tmp_path / "dump", bytes(SIZE), format="kdump", granule=65536)
    view = memoryview(bytearray(b"\1" * SIZE))
    with open_dump(tmp_path / "dump") as dump:
        tracemalloc.start()
        try:
            dump.read_into(0, view)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < SIZE // 4
    assert not any(view)
