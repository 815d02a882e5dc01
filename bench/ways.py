# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared by the measurements that use the C program: turns, figures, a target in memory."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SHARED = Path("/dev/shm")
Found = dict[str, Any]


def in_turns(
    ways: Sequence[str], rounds: int, call: Callable[[str], Found]
) -> dict[str, list[Found]]:
    """`rounds` runs of each way, in turn: A B C A B C."""
    found: dict[str, list[Found]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way].append(call(way))
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value such that at least `share` of all values are not above it."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def dumps_of(found: Sequence[Found]) -> list[Found]:
    """All dumps of all runs, joined."""
    return [dump for run in found for dump in run["dumps"]]


@contextmanager
def memory_target() -> Iterator[Path]:
    """A file in memory as a dump's target: as fast as memory is written."""
    with tempfile.TemporaryDirectory(dir=SHARED, prefix="livedump-bench-") as folder:
        yield Path(folder) / "target"


def without_ticks(way: str, run: Found, **more: Any) -> Found:
    """A sample for the JSON file: those parts of a run that are used."""
    return {"way": way, **more, **{k: v for k, v in run.items() if k not in ("ticks", "way")}}
