# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of dimensions: given to Arena.array, kept in dumps and in Zarr groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dumpfile import open_dump as open_file
from livedumpfs.errors import InvalidDump, UsageError, WrongType


def test_a_dump_keeps_them(tmp_path: Path) -> None:
    with Arena("1MiB") as arena:
        arena.array("f4", (3, 5), name="a", dims=("x", "y"))
        arena.array("f4", (5,), name="b", dims=["y"])
        arena.array("f4", (5,), name="c")
        LiveDump(arena).save(tmp_path / "dump")
    with open_dump(tmp_path / "dump") as dump:
        assert [one.dims for one in dump.arrays] == [("x", "y"), ("y",), None]
        with Arena.load(dump) as again:
            assert [one.dims for one in again.named] == [("x", "y"), ("y",), None]


@pytest.mark.parametrize(
    ("dims", "said"),
    [
        (("x",), "dims of array 'b' must be 2 different names"),
        (("x", "x"), "dims of array 'b' must be 2 different names"),
        (("x", ""), "dims of array 'b' must be 2 different names"),
        (("y", "x"), "dimension 'x' has 5 elements in array 'b', and 3 in 'a'"),
    ],
)
def test_those_that_do_not_fit(dims: tuple[str, ...], said: str) -> None:
    with Arena("1MiB") as arena:
        arena.array("f4", (3,), name="a", dims=("x",))
        with pytest.raises(UsageError, match=said):
            arena.array("f4", (3, 5), name="b", dims=dims)
        assert list(arena.arrays) == ["a"]


def test_no_names() -> None:
    with Arena("1MiB") as arena:
        with pytest.raises(WrongType, match="a sequence of names"):
            arena.array("f4", (3,), name="a", dims="x")
        with pytest.raises(UsageError, match="only an array with a name"):
            arena.array("f4", (3,), dims=("x",))


def test_a_dump_with_others(tmp_path: Path, write_dump: Callable[..., Any]) -> None:
    one = {"name": "a", "dtype": "<u8", "shape": [4, 4], "offset": 0, "dims": ["x"]}
    write_dump(tmp_path / "dump", bytes(8192), meta={"arrays": [one]})
    with pytest.raises(InvalidDump, match="names for other dimensions"):
        open_file(tmp_path / "dump")
