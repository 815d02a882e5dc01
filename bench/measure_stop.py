# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the writers stand still (quiesce, arming and resume), by RAM and number of writers.

Every page is allocated. Dumps have no target and end right after the stop; fork's child ends at
once. Each process fills its memory once and then makes all its dumps. With one writer the other
core is idle but for the watch, a busy loop with the least weight that the scheduler knows. It finds
out when a processor was taken away: while the writers stand, one is the loop's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from measurement import Bar, Curve, Effort, Measurement, Plot
from peers.build import run
from ways import Found, dumps_of, in_turns, quantile, without_ticks

from livedumpfs.units import format_size

SIZES = (64 << 20, 256 << 20, 1 << 30, 4 << 30, 16 << 30)
MANY_MOST = 4 << 30
"""Most bytes for figures with several writers: beyond, each INIT takes seconds."""
ALL_WAYS_MOST = 1 << 30
"""Most bytes for figures of all ways."""
PEERS = ("fork", "mprotect", "uffd", "stop")
STOP = ("quiesce_ns", "arm_ns", "resume_ns")


STOPS = 200
"""Stops of one writer at each size."""
GAP_NS = 100_000
"""The watch notes when it did not run for so long."""


@dataclass(slots=True)
class Watch:
    """When the busy loop did not run: (begin, end, waited), ns of CLOCK_MONOTONIC. `waited`: how
    much of it the loop was ready and another thread of this system ran. In the rest the system
    counts it as running: its processor was not there."""

    gaps: list[tuple[int, int, int]] = field(default_factory=list)
    steal_ms: int = 0
    """What the hypervisor says it took of all processors, in whole ticks (/proc/stat)."""

    def within(self, begin: int, end: int) -> tuple[float, float]:
        """The longest gap in that time, and how much of it the loop did not wait, ns."""
        found = (0.0, 0.0)
        for first, last, waited in self.gaps:
            inside = min(end, last) - max(begin, first)
            if inside > found[0]:
                share = 1 - min(1.0, waited / (last - first))
                found = (float(inside), inside * share)
        return found


def _waited_ns() -> int:
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1])


def _loop(pipe: Connection) -> None:
    os.nice(19)
    gaps: list[tuple[int, int, int]] = []
    waited = _waited_ns()
    last = asked = time.monotonic_ns()
    pipe.send(None)
    while True:
        now = time.monotonic_ns()
        if now - last > GAP_NS:
            sum_now = _waited_ns()
            gaps.append((last, now, sum_now - waited))
            waited = sum_now
            now = time.monotonic_ns()
        last = now
        if now - asked > 10_000_000:
            asked = now
            if pipe.poll():
                pipe.send(gaps)
                return


def _steal_ms() -> int:
    ticks = int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])
    return ticks * 1000 // os.sysconf("SC_CLK_TCK")


@contextmanager
def watching() -> Iterator[Watch]:
    """A busy loop beside what is done; what it has seen is known afterwards."""
    ours, its = get_context("fork").Pipe()
    loop = get_context("fork").Process(target=_loop, args=(its,), daemon=True)
    watch = Watch(steal_ms=-_steal_ms())
    loop.start()
    try:
        ours.recv()
        yield watch
        ours.send(None)
        watch.gaps = ours.recv()
        watch.steal_ms += _steal_ms()
        loop.join()
    finally:
        loop.kill()
        loop.join()


def stop_of(dump: Found) -> float:
    """Nanoseconds for which the writers stood still."""
    return float(sum(dump[part] for part in STOP))


def measure(effort: Effort) -> Measurement:
    """Table, growth and bars."""
    found = Measurement(
        "stop",
        "Stop of the machine, microseconds",
        ["way", "RAM", "writers", "dumps", "quiesce", "arm", "resume", "p50", "p99", "max",
         "taken", "p99 else", "steal ms"],
    )  # fmt: skip
    middles: dict[tuple[str, int, int], list[float]] = {}
    for size in SIZES:
        if size > (256 << 20 if effort.quick else effort.largest):
            continue
        most = SIZES[0] if effort.quick else MANY_MOST
        for writers in (1, 2, 4) if size <= most else (1,):
            _measure_one(found, middles, effort, size, writers)
    _judge(found, middles)
    found.plots.append(_plot(middles))
    found.notes.append(
        "mprotect and userfaultfd here are arming over all memory while it stands; stop copies it."
    )
    found.notes.append(
        "taken: stops of ours in which a busy loop beside them did not run for half of the stop,"
        " though one processor was its own; p99 else: of all others; steal: /proc/stat, whole run."
    )
    return found


def _measure_one(
    found: Measurement,
    middles: dict[tuple[str, int, int], list[float]],
    effort: Effort,
    size: int,
    writers: int,
) -> None:
    ways = ("ours", *PEERS) if size <= ALL_WAYS_MOST and writers == 1 else ("ours", "fork")
    rounds = 1 if effort.quick or size >= ALL_WAYS_MOST else 2

    watches: list[Watch] = []

    def make(way: str, dumps: int) -> Found:
        return run(
            way, size=size, writers=writers, pattern=1, dumps=dumps, pool=4 << 20, policy=1,
            before=5, after=5,
        )  # fmt: skip

    def call(way: str) -> Found:
        if way != "ours":
            return make(way, effort.repeats(5, 2))
        with watching() as watch:
            watches.append(watch)
            return make(way, effort.repeats((STOPS if writers == 1 else 50) // rounds, 10))

    for way, runs in in_turns(ways, rounds, call).items():
        dumps = dumps_of(runs)
        stops = [stop_of(dump) for dump in dumps]
        middles[way, size, writers] = stops
        parts = [quantile([dump[part] for dump in dumps], 0.5) for part in STOP]
        figures = [*parts, *(quantile(stops, share) for share in (0.5, 0.99, 1.0))]
        cells = [f"{one / 1000:,.0f}" for one in figures]
        if way == "ours":
            cells += _proof(found, watches, runs, size, writers)
        else:
            cells += ["", "", ""]
        found.rows.append([way, format_size(size), str(writers), str(len(dumps)), *cells])
        found.samples += [without_ticks(way, one, writers=writers) for one in runs]


def _proof(
    found: Measurement, watches: list[Watch], runs: list[Found], size: int, writers: int
) -> list[str]:
    """Cells: how many stops had no processor for half of their time, and the p99 of the others."""
    others, taken = [], 0
    for watch, one in zip(watches, runs, strict=True):
        for dump in one["dumps"]:
            stop = stop_of(dump)
            gap, gone = watch.within(dump["begun"], int(dump["begun"] + stop))
            if gap < stop / 2:
                others.append(stop)
                continue
            taken += 1
            found.samples.append(
                {"way": "taken", "size": size, "writers": writers, "stop_ns": stop,
                 "gap_ns": gap, "not_there_ns": gone}
            )  # fmt: skip
    steal = sum(watch.steal_ms for watch in watches)
    return [str(taken), f"{quantile(others, 0.99) / 1000:,.0f}" if others else "-", str(steal)]


def _judge(found: Measurement, stops: dict[tuple[str, int, int], list[float]]) -> None:
    sizes = sorted({size for way, size, writers in stops if way == "ours" and writers == 1})
    large = sizes[-1]
    middle = {key: quantile(value, 0.5) for key, value in stops.items()}
    base = 1 << 30 if 1 << 30 in sizes else sizes[0]
    name = format_size(large)
    if large > base:
        text = f"stop at {name} / at {format_size(base)}"
        ratio = middle["ours", large, 1] / middle["ours", base, 1]
        found.bars.append(Bar(text, ratio, 1.5, at_least=False))
    ratio = middle["fork", large, 1] / middle["ours", large, 1]
    found.bars.append(Bar(f"fork's stop / ours at {name}", ratio, 300 * large / (16 << 30)))
    worst = max(quantile(stops["ours", size, 1], 0.99) for size in sizes) / 1e6
    found.bars.append(Bar("p99 with an idle core, ms, at the worst size", worst, 1, at_least=False))


def _plot(stops: dict[tuple[str, int, int], list[float]]) -> Plot:
    return Plot(
        "stop",
        "Stop of the machine with one writer",
        "RAM, MiB",
        "microseconds: median, best to worst",
        [_curve(way, stops) for way in ("ours", *PEERS)],
        log_x=True,
        log_y=True,
    )


def _curve(way: str, stops: dict[tuple[str, int, int], list[float]]) -> Curve:
    sizes = sorted(size for name, size, writers in stops if name == way and writers == 1)

    def at(share: float) -> list[float]:
        return [_us(stops[way, size, 1], share) for size in sizes]

    return Curve(way, [size / (1 << 20) for size in sizes], at(0.5), at(0.0), at(1.0))


def _us(values: Sequence[float], share: float) -> float:
    return quantile(values, share) / 1000
