# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the writers stand still (quiesce, arming and resume), by RAM and number of writers.

Every page is allocated. Dumps have no target and end right after the stop; fork's child ends at
once. Each process fills its memory once and then makes all its dumps. With one writer the other
core is idle.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def stop_of(dump: Found) -> float:
    """Nanoseconds for which the writers stood still."""
    return float(sum(dump[part] for part in STOP))


def measure(effort: Effort) -> Measurement:
    """Table, growth and bars."""
    found = Measurement(
        "stop",
        "Stop of the machine, microseconds",
        ["way", "RAM", "writers", "dumps", "quiesce", "arm", "resume", "p50", "p99", "max"],
    )
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

    def call(way: str) -> Found:
        dumps = effort.repeats(50 // rounds, 10) if way == "ours" else effort.repeats(5, 2)
        return run(
            way, size=size, writers=writers, pattern=1, dumps=dumps, pool=4 << 20, policy=1,
            before=5, after=5,
        )  # fmt: skip

    for way, runs in in_turns(ways, rounds, call).items():
        dumps = dumps_of(runs)
        stops = [stop_of(dump) for dump in dumps]
        middles[way, size, writers] = stops
        parts = [quantile([dump[part] for dump in dumps], 0.5) for part in STOP]
        figures = [*parts, *(quantile(stops, share) for share in (0.5, 0.99, 1.0))]
        cells = [f"{one / 1000:,.0f}" for one in figures]
        found.rows.append([way, format_size(size), str(writers), str(len(dumps)), *cells])
        found.samples += [without_ticks(way, one, writers=writers) for one in runs]


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
