# SPDX-License-Identifier: GPL-2.0-or-later
"""The page map: letters of the core's marks, and the same map in fewer or more cells."""

from __future__ import annotations

import numpy as np
import pytest

from livedumpfs import page_map
from livedumpfs.core.capi import lib
from livedumpfs.dump.picture import picture


def mark(state: int, how: int = 0) -> int:
    return state | how << 4


@pytest.mark.parametrize(
    ("state", "how", "letter"),
    [
        ("ARMED", "NONE", "."), ("HOLE", "NONE", "0"), ("SWEEPING", "NONE", "s"),
        ("SAVED", "NONE", "S"), ("SAVED", "SWEEP", "S"), ("CLAIMED", "NONE", "f"),
        ("IN_SLOT", "FAULT", "f"), ("SAVED", "FAULT", "F"), ("STEALING", "NONE", "t"),
        ("STOLEN", "STEAL", "t"), ("IN_SLOT", "STEAL", "t"), ("SAVED", "STEAL", "T"),
        ("LOST", "NONE", "L"),
    ],
)  # fmt: skip
def test_the_letter_of_each_state(state: str, how: str, letter: str) -> None:
    one = mark(getattr(lib, f"LDFS_G_{state}"), getattr(lib, f"LDFS_BY_{how}"))
    assert picture(np.array([one, 0], dtype=np.uint8), armed=True) == f"{letter}.".encode()


def test_each_letter_is_of_the_alphabet() -> None:
    marks = np.arange(256, dtype=np.uint8)
    assert set(picture(marks, armed=True).decode()) | {"-"} == set(page_map.LETTERS)


def test_nothing_is_armed_before_start() -> None:
    assert picture(np.zeros(5, dtype=np.uint8), armed=False) == b"-----"


@pytest.mark.parametrize("armed", [True, False])
def test_a_large_machine_has_as_many_cells_as_the_file(armed: bool) -> None:
    marks = np.full(page_map.CELLS_MOST * 3 + 1, lib.LDFS_G_LOST, dtype=np.uint8)
    assert picture(marks, armed) == (b"L" if armed else b"-") * page_map.CELLS_MOST


@pytest.mark.parametrize(
    ("cell", "letter"),
    [
        (b"....", b"."), (b"...S", b"."), (b"..SS", b"S"), (b"SSSF", b"F"),
        (b"S" * 15 + b"F", b"F"), (b"S" * 17 + b"F", b"S"),
        (b"....s", b"s"), (b"." * 5000 + b"L", b"L"), (b"FFFT", b"F"), (b"00.", b"0"),
    ],
)  # fmt: skip
def test_what_a_cell_of_several_granules_is(cell: bytes, letter: bytes) -> None:
    assert page_map.shrink(cell, 1) == letter


@pytest.mark.parametrize("cells", [1, 2, 7, 99, 100, 101, 1000])
def test_a_map_in_other_sizes(cells: int) -> None:
    letters = b"." * 50 + b"S" * 49 + b"L"
    shrunk = page_map.shrink(letters, cells)
    assert len(shrunk) == min(cells, len(letters)) and shrunk.endswith(b"L")
    spread = page_map.spread(letters, cells)
    assert len(spread) == cells and spread.endswith(b"L")
    assert [spread[: -(-cells // 100)].strip(b"."), shrunk.count(b"L")] == [b"", 1] or cells == 1


def test_no_map_and_no_cells() -> None:
    assert page_map.spread(b"", 10) == b""
    assert page_map.spread(b"SS", 0) == b""
