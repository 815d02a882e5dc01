# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel says of its clock, against a C program that asks the same by its own header."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from livedumpfs.clocks import read_clock

PROGRAM = Path(__file__).parents[1] / "fixtures" / "programs" / "kernel_clock.c"


def test_it_is_the_time() -> None:
    before = time.time_ns()
    found = read_clock()
    assert before - 1000 <= found.wall_ns <= time.time_ns()
    assert found.max_error_ns >= 0 and found.estimated_error_ns >= 0
    assert abs(found.frequency_ppm) <= 500


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_it_is_what_the_kernel_tells_c(tmp_path: Path) -> None:
    import ctypes

    from livedumpfs import clocks

    made = tmp_path / "clock"
    subprocess.run(["cc", "-o", made, PROGRAM], check=True)

    def c() -> list[int]:
        said = subprocess.run([made], check=True, capture_output=True, text=True).stdout
        return [int(one) for one in said.split()]

    before, found, after = c(), read_clock(), c()
    assert before[5] == ctypes.sizeof(clocks._Timex)
    said = (int(found.synchronised), found.offset_ns, found.estimated_error_ns)
    for index, one in enumerate(said):
        assert min(before[index], after[index]) <= one <= max(before[index], after[index])
    assert before[3] <= found.max_error_ns <= after[3] or after[3] < before[3]
    assert round(found.frequency_ppm * 65536) in (before[4], after[4])
