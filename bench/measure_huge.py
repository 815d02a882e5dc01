# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of huge pages beside memory of small ones: the speed of a program that stores at random,
before any dump and after each of ten, and what these dumps cost.

The settings of the kernel are changed for the measurement, and put back: shmem_enabled, and so many
pages more in the pool. Without the right to that, the rows that need it are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from measurement import Bar, Effort, Measurement
from peers.build import PAGES, PeerError, huge
from ways import Found, in_turns, memory_target, quantile

HUGE = 2 << 20
SHMEM_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
POOL = Path("/proc/sys/vm/nr_hugepages")
KEPT = 0.95
"""The share of its speed that memory of transparent huge pages has again after each dump."""
SWAP, MPROTECT = 0, 1


class Kind(NamedTuple):
    """A row: which pages, and of which granule."""

    pages: str
    granule: int
    arming: int = SWAP


KINDS = {
    "4 KiB, granule 64 KiB": Kind("small", 64 << 10),
    "thp, granule 64 KiB": Kind("thp", 64 << 10),
    "thp, granule 2 MiB": Kind("thp", HUGE),
    "2M, granule 2 MiB": Kind("2M", HUGE, MPROTECT),
}


@contextmanager
def changed(
    path: Path, now: Callable[[str], str], back: Callable[[str, str], str]
) -> Iterator[str]:
    """The kernel's setting is `now` of what it was; afterwards `back` of what it was and is. Yields
    why it could not be set, or nothing."""
    try:
        before = path.read_text()
        path.write_text(now(before))
    except OSError as error:
        yield f"{path}: {error.strerror}"
        return
    try:
        yield ""
    finally:
        path.write_text(back(before, path.read_text()))


def more_pages(count: int) -> tuple[Callable[[str], str], Callable[[str, str], str]]:
    """So many more in the pool, which other programs may change meanwhile, too."""
    return lambda was: str(int(was) + count), lambda _, now: str(int(now) - count)


def _chosen(text: str) -> str:
    """The word in brackets."""
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else ""


def measure(effort: Effort) -> Measurement:
    """Table, bar, and the settings."""
    found = Measurement(
        "huge",
        "Memory of huge pages: stores at random by one thread, and dumps",
        [
            "pages", "ns a store", "least speed after a dump", "INIT first ms", "INIT again ms",
            "arming us", "first store us", "whole again ms",
        ],
    )  # fmt: skip
    size = effort.repeats(1 << 30, 128 << 20)
    dumps = effort.repeats(10, 2)
    with ExitStack() as stack:
        for setting in (
            changed(SHMEM_ENABLED, lambda _: "advise", lambda was, _: _chosen(was)),
            changed(POOL, *more_pages(size // HUGE)),
        ):
            if why := stack.enter_context(setting):
                found.notes.append(why)
        target = stack.enter_context(memory_target())

        def run(name: str) -> Found:
            kind = KINDS[name]
            try:
                return huge(
                    "ours",
                    size=size,
                    pages=PAGES[kind.pages],
                    granule=kind.granule,
                    arming=kind.arming,
                    dumps=dumps,
                    target=target,
                )
            except PeerError as error:
                return {"dumps": [], "failed": str(error)}

        runs = in_turns(tuple(KINDS), effort.repeats(2, 1), run)
    for name in KINDS:
        _tell(found, name, runs[name])
    found.notes.append(
        f"{size >> 20} MiB, every page exists; each dump with 64 lone first stores and a sweep to "
        f"a file in memory, {dumps} dumps in a row, the next one once all is whole again. Speed: "
        f"the fastest of 200 passes of 100,000 stores. Medians, but the least speed."
    )
    return found


def _tell(found: Measurement, name: str, runs: list[Found]) -> None:
    """A row, or a note that says why there is none."""
    good = [run for run in runs if run["dumps"]]
    found.samples += [{"pages": name, **run} for run in runs]
    if not good:
        found.notes.append(f"{name}: {runs[0]['failed']}")
        return
    dumps = [one for run in good for one in run["dumps"]]
    again = [one for run in good for one in run["dumps"][1:]]
    least = min(run["speed_ns"] / one["speed_ns"] for run in good for one in run["dumps"])

    def median(ns: str, of: list[Found], unit: float) -> float:
        return quantile([one[ns] for one in of], 0.5) / unit

    found.rows.append(
        [
            name,
            f"{quantile([run['speed_ns'] / run['stores'] for run in good], 0.5):.1f}",
            f"{least:.2f}",
            f"{median('prepare_ns', [run['dumps'][0] for run in good], 1e6):,.0f}",
            f"{median('prepare_ns', again, 1e6):,.0f}",
            f"{median('arm_ns', dumps, 1e3):,.0f}",
            f"{median('lone_ns', dumps, 1e3):,.0f}",
            f"{median('whole_ns', dumps, 1e6):,.0f}" if name.startswith("thp") else "-",
        ]
    )
    if name.startswith("thp"):
        found.bars.append(Bar(f"{name}: speed after each dump / before", least, KEPT))
