# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a single store takes during a dump, up to the longest one, timed in the writer itself.

One writer stores all over the memory; the target is in memory. Once the dump has the second core
for itself, once another program keeps that core busy. The line "before" shows the computer's own
noise.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from measurement import Bar, Curve, Effort, Measurement, Plot
from peers.build import POLICIES, run
from ways import Found, dumps_of, in_turns, memory_target, without_ticks

PEERS = ("fork", "mprotect", "uffd-sigbus", "uffd")
OURS = {f"ours, {policy}": number for policy, number in POLICIES.items()}
SHARES = ("p50", "p99", "p999", "p9999", "max")
POOL = 64 << 20


def _spin() -> None:
    while True:
        pass


@contextmanager
def busy() -> Iterator[None]:
    """A program that keeps one core busy."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def measure(effort: Effort) -> Measurement:
    """Table, distribution, bars."""
    found = Measurement(
        "stall",
        "One store during a dump, microseconds",
        ["second core", "way", "stores", "p50", "p99", "p99.9", "p99.99", "longest"],
    )
    size = effort.repeats(256 << 20, 64 << 20)
    with memory_target() as target:
        for core in ("idle",) if effort.quick else ("idle", "busy"):
            with busy() if core == "busy" else nullcontext():
                _measure_one(found, core, size, effort.repeats(3, 1), target)
        _no_wait(found, size, target)
    return found


def _call(name: str, size: int, target: Path, pool: int = POOL) -> Found:
    way = "ours" if name in OURS else name
    return run(
        way, size=size, writers=1, pattern=1, dumps=3, target=target, pool=pool,
        policy=OURS.get(name, 0), before=100, after=50,
    )  # fmt: skip


def _measure_one(found: Measurement, core: str, size: int, rounds: int, target: Path) -> None:
    names = (*(name for name in OURS if "fail" not in name), *PEERS)
    runs = in_turns(names, rounds, lambda name: _call(name, size, target))
    middle = {name: _middle(runs[name], "during") for name in names}
    for name, times in {"before": _middle(runs[names[0]], "before"), **middle}.items():
        cells = [f"{times[share] / 1000:,.1f}" for share in SHARES]
        found.rows.append([core, name, f"{times['count']:,}", *cells])
    found.samples += [without_ticks(name, one, core=core) for name in names for one in runs[name]]
    if core == "idle":
        text = "p99.9 of a store under block, ms"
        found.bars.append(Bar(text, middle["ours, block"]["p999"] / 1e6, 1.0, at_least=False))
        found.plots.append(_plot({name: runs[name][0]["during"] for name in names}))


def _middle(runs: list[Found], era: str) -> Found:
    """The run with the median p99.9."""
    found: Found = sorted((one[era] for one in runs), key=lambda one: one["p999"])[len(runs) // 2]
    return found


def _no_wait(found: Measurement, size: int, target: Path) -> None:
    """With a slot for every granule one is always free, so no writer may ever wait."""
    runs = in_turns(("ours, block",), 1, lambda name: _call(name, size, target, pool=2 * size))
    waits = sum(dump["slot_waits"] for dump in dumps_of(runs["ours, block"]))
    found.bars.append(Bar("stores that waited although a slot was free", waits, 0, at_least=False))


def _plot(times: dict[str, Found]) -> Plot:
    curves = []
    for name, one in times.items():
        x, y, above = [], [], one["count"]
        for end, count in one["bins"]:
            above -= count
            if above > 0:
                x.append(end / 1000)
                y.append(above / one["count"])
        curves.append(Curve(name, x, y))
    return Plot(
        "stall",
        "Stores that take longer than x during a dump, second core idle",
        "microseconds",
        "share of the stores",
        curves,
        log_x=True,
        log_y=True,
    )
