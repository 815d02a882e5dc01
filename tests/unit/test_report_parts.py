# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a page that are made of numbers: cells, histograms, moments, registers."""

from __future__ import annotations

import pytest

from livedumpfs import page_map
from livedumpfs.html_report.page_map_picture import CELLS_MOST, cell_count, picture
from livedumpfs.html_report.register_blocks import VCPUS_MOST, register_blocks
from livedumpfs.html_report.stalls import stalls
from livedumpfs.html_report.subject import SavedKind
from livedumpfs.html_report.ways_saved import CLASSES, kind_rows, moments


@pytest.mark.parametrize(
    ("parts", "cells"),
    [
        (0, 0),
        (1, 1),
        (CELLS_MOST, CELLS_MOST),
        (CELLS_MOST + 1, 2305),
        (65536, 4096),
        (1 << 23, 4096),
    ],
)
def test_a_map_has_so_many_cells(parts: int, cells: int) -> None:
    assert cell_count(parts) == cells <= CELLS_MOST


def test_a_picture_has_each_cell_once() -> None:
    drawn = picture(b"SSFF." * 20, lambda value: CLASSES[chr(value)])
    assert (drawn.columns, drawn.rows) == (32, 4)
    paths = dict(drawn.paths)
    assert set(paths) == {"sweep", "fault", "waiting"}
    assert paths["sweep"].startswith("M0 0h2v1h-2zM5 0h2v1h-2z")
    assert "M31 0h1v1h-1zM0 1h" in "".join(paths.values()) or "M30 0h2v1h-2z" in paths["sweep"]
    assert drawn.grid.count("M") == 31 + 3


def test_cells_without_a_name_are_not_drawn() -> None:
    assert picture(b"\0\1\0", lambda value: "x" if value else "").paths == [("x", "M1 0h1v1h-1z")]


def test_each_letter_has_a_class() -> None:
    assert set(CLASSES) == set(page_map.LETTERS)
    assert len(set(CLASSES.values())) == len(CLASSES)


def test_what_is_under_way_is_in_the_map_alone() -> None:
    kinds = [SavedKind(page_map.SWEPT, 3, 3 * 4096), SavedKind(page_map.ARMED, 1, 4096)]
    rows = kind_rows(kinds, b"SSsf.", 5 * 4096, living=True)
    assert [(row.name, row.granules) for row in rows] == [
        ("by sweep", 3), ("sweep's I/O", None), ("in a slot", None), ("not saved yet", 1),
    ]  # fmt: skip
    assert kind_rows(kinds, b"", 0, living=False)[1].name == "missing"


@pytest.mark.parametrize(
    "odd",
    [
        {}, {"instant_mono_ns": "evil", "sweep_start_ns": 2, "drained_ns": 3},
        {"instant_mono_ns": 5, "sweep_start_ns": 2, "drained_ns": 9},
        {"instant_mono_ns": 1, "sweep_start_ns": 3, "drained_ns": 2},
        {"instant_mono_ns": 1, "sweep_start_ns": 0, "drained_ns": 0},
        {"instant_mono_ns": 1, "sweep_start_ns": 1 << 64, "drained_ns": 1 << 65},
    ],
)  # fmt: skip
def test_moments_that_make_no_sense_are_not_told(odd: dict[str, object]) -> None:
    assert moments(odd) == []


def test_moments_fill_the_time() -> None:
    first, second = moments({"instant_mono_ns": 100, "sweep_start_ns": 125, "drained_ns": 200})
    assert (first.left, first.width) == (0.0, 25.0)
    assert (second.left, second.width) == (25.0, 75.0)


@pytest.mark.parametrize(
    "odd",
    [{}, {"handler_ns": 7}, {"handler_ns": [0] * 40}, {"handler_ns": [1] * 65},
     {"handler_ns": ["x", -1, None, 1 << 70]}],
)  # fmt: skip
def test_no_histogram(odd: dict[str, object]) -> None:
    assert stalls(odd).rows == []


def test_a_histogram_is_cut_to_what_is_there() -> None:
    found = stalls({"handler_ns": [0, 0, 1, 0, 1023], "stall_max_ns": 31})
    assert [(row.bin, row.faults, round(row.percent)) for row in found.rows] == [
        (2, 1, 10), (3, 0, 0), (4, 1023, 100),
    ]  # fmt: skip
    assert (found.faults, found.half, found.most, found.longest) == (
        1024,
        "32 ns",
        "32 ns",
        "31 ns",
    )


def test_registers_of_many_vcpus_and_of_none() -> None:
    assert register_blocks([]) == ([], 0)
    many = [(f"vCPU {n}", {"pc": n}) for n in range(VCPUS_MOST + 3)]
    blocks, more = register_blocks(many)
    assert (len(blocks), more) == (VCPUS_MOST, 3)
    assert blocks[5].place == "pc 0x0000000000000005"


def test_registers_that_are_none() -> None:
    (block,), _ = register_blocks([("vCPU 0", {"x" * 99: "y" * 99, "rip": -1, "rax": 1 << 64})])
    assert block.values[0] == ("x" * 32, "y" * 32)
    assert block.values[1:] == [("rip", "-1"), ("rax", "18446744073709551616")]
