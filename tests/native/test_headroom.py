# SPDX-License-Identifier: GPL-2.0-or-later
"""How much more memory native/memory/headroom.c thinks there is, by what the kernel says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20
RESERVE = 16
V1 = {
    "limit": "memory.limit_in_bytes",
    "usage": "memory.usage_in_bytes",
    "swap limit": "memory.memsw.limit_in_bytes",
    "swap usage": "memory.memsw.usage_in_bytes",
}
V2 = {
    "limit": "memory.max",
    "high": "memory.high",
    "usage": "memory.current",
    "swap limit": "memory.swap.max",
    "swap usage": "memory.swap.current",
}


class Kernel:
    """Files as the kernel has them; all sizes in MiB."""

    def __init__(self, place: Path, program: Path, run_program: Callable[..., Any]) -> None:
        self.place = place
        self._program, self._run = program, run_program
        self.memory(available=1000)

    def write(self, name: str, text: str) -> None:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def memory(self, available: int, swap: int | None = None) -> None:
        lines = [f"MemAvailable:   {available << 10} kB"]
        if swap is not None:
            lines += [f"SwapTotal:      {(swap + 50) << 10} kB", f"SwapFree:       {swap << 10} kB"]
        self.write("proc/meminfo", "\n".join(lines))

    def group(self, version: int, name: str, stat: str = "", **figures: int | str) -> None:
        line = f"4:memory:{name}" if version == 1 else f"0::{name}"
        if not (self.place / "proc/self/cgroup").exists():
            self.write("proc/self/cgroup", line)
        folder = "sys/fs/cgroup/memory" if version == 1 else "sys/fs/cgroup"
        files = V1 if version == 1 else V2
        for figure, value in figures.items():
            text = value if isinstance(value, str) else str(value * MIB)
            self.write(f"{folder}{name}/{files[figure.replace('_', ' ')]}", text)
        self.write(f"{folder}{name}/memory.stat", f"anon 1\n{stat}")

    def has(self, mib: int, *how: str) -> bool:
        code, said = self._run(self._program, str(self.place), str(mib * MIB), *how)
        assert code == 0, said
        return bool(said == "yes\n")

    def expect(self, mib: int, *how: str) -> None:
        """It has that much, and not more, besides the reserve."""
        assert (self.has(mib - RESERVE, *how), self.has(mib - RESERVE + 1, *how)) == (True, False)


@pytest.fixture(scope="module")
def program(building: Callable[..., Any]) -> Path:
    build = building("headroom")
    here = Path(__file__).parent
    objects = [
        build.object_of(here / "headroom_below.c"),
        build.object_of(here.parents[1] / "native" / "memory" / "headroom.c", "-Dopen=open_below"),
    ]
    made: Path = build.link("headroom", objects)
    return made


@pytest.fixture
def kernel(tmp_path: Path, program: Path, run_program: Callable[..., Any]) -> Kernel:
    return Kernel(tmp_path, program, run_program)


def test_free_swap_of_the_machine_counts(kernel: Kernel) -> None:
    kernel.expect(1000)
    kernel.memory(100, swap=0)
    kernel.expect(100)
    kernel.memory(100, swap=4000)
    kernel.expect(4100)


def test_a_pool_that_follows_the_memory_does_not_count_swap(kernel: Kernel) -> None:
    kernel.memory(100, swap=4000)
    kernel.expect(100, "ram")
    kernel.memory(1000, swap=300)
    kernel.group(2, "/one", limit=500, usage=400, swap_usage=0, swap_limit="max")
    kernel.expect(400)
    kernel.expect(100, "ram")


def test_a_kernel_that_says_nothing_has_no_limit(kernel: Kernel) -> None:
    (kernel.place / "proc/meminfo").unlink()
    assert kernel.has(1 << 20)


@pytest.mark.parametrize(
    ("swap", "room"),
    [
        ({}, 100),
        ({"swap_usage": 0}, 100),
        ({"swap_usage": 20, "swap_limit": 70}, 150),
        ({"swap_usage": 70, "swap_limit": 70}, 100),
        ({"swap_usage": 80, "swap_limit": 70}, 100),
        ({"swap_usage": 20, "swap_limit": "max"}, 400),
    ],
)
def test_a_group_of_v2_has_the_swap_that_its_limit_leaves(
    kernel: Kernel, swap: dict[str, int | str], room: int
) -> None:
    """And no more than is free."""
    kernel.memory(1000, swap=300)
    kernel.group(2, "/one", limit=500, usage=400, **swap)
    kernel.expect(room)


@pytest.mark.parametrize(("high", "room"), [(450, 50), (600, 100), ("max", 100), (300, 0)])
@pytest.mark.parametrize("limited", [True, False])
def test_above_its_high_mark_a_group_is_held_up_and_swapped(
    kernel: Kernel, high: int | str, room: int, limited: bool
) -> None:
    kernel.group(2, "/one", limit=500 if limited else "max", usage=400, high=high)
    if room == 0:
        assert not kernel.has(0)
    elif limited or isinstance(high, int):
        kernel.expect(room if limited else int(high) - 400)
    else:
        kernel.expect(1000)


@pytest.mark.parametrize(
    ("swap", "room"),
    [
        ({}, 100),
        ({"swap_usage": 400, "swap_limit": 500}, 100),
        ({"swap_usage": 450, "swap_limit": 500}, 100),
        ({"swap_usage": 450, "swap_limit": 600}, 150),
        ({"swap_usage": 450, "swap_limit": str((1 << 63) - 4096)}, 400),
    ],
)
def test_of_a_group_of_v1_the_limit_is_that_of_both(
    kernel: Kernel, swap: dict[str, int | str], room: int
) -> None:
    kernel.memory(1000, swap=300)
    kernel.group(1, "/one", limit=500, usage=400, **swap)
    kernel.expect(room)


def test_each_group_above_counts_by_itself(kernel: Kernel) -> None:
    kernel.memory(1000, swap=300)
    kernel.group(2, "/above/one", limit=500, usage=400, swap_usage=0, swap_limit="max")
    kernel.expect(400)
    kernel.group(2, "/above", limit=600, usage=450, swap_usage=0, swap_limit=10)
    kernel.expect(160)


def test_half_of_what_a_group_can_give_up_counts(kernel: Kernel) -> None:
    stat = f"inactive_file {20 * MIB}\nactive_file {40 * MIB}\nslab_reclaimable {10 * MIB}"
    kernel.group(2, "/one", stat, limit=500, usage=400)
    kernel.expect(135)
