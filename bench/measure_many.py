# SPDX-License-Identifier: GPL-2.0-or-later
"""Many writers: each pool and backend beside fork and userfaultfd, first stores, INIT.

The cells, their order and their settings are those of bench/peers/many.c, which also runs alone, on
a computer without Python (bench/many_writers.py). This file turns its JSON into tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from measure_writers import Speed
from measurement import Bar, Effort, Measurement
from peers.build import PeerError, many
from ways import Found, memory_target

SAME_NS: Final = 600_000_000
"""The time after START over which the speed of all ways is compared."""
DEFAULTS: Final = ("ours, sigsegv, pool auto", "ours, sigsegv, pool 64 MiB")
"""What a dump uses without options: the first of these that the core has."""
TIMES: Final = 3.0
LATE: Final = 2.0
FLOOR: Final = 1.3
MS, US, GIB = 1e6, 1e3, 1 << 30
WRITERS: Final = [
    "pattern", "writers", "way", "during its dump", "same 600 ms", "dump s", "waits for a slot",
    "longest save ms", "p99.9 us", "longest store ms", "runs",
]  # fmt: skip
Key = tuple[str, int, str]
"""Pattern (or size of a granule), number of threads, way."""


def measure(effort: Effort) -> Measurement:
    """One run of the static program on this computer."""
    with memory_target() as target:
        size = effort.repeats(512 << 20, 64 << 20)
        found = many(budget=effort.repeats(240, 8), size=size, target=target)
    result, *others = tables(found)
    for other in others:
        result.notes += [other.title + ":", *markdown(other)]
        result.bars += other.bars
    result.samples = [_sample(run) for run in found["runs"]]
    return result


def _sample(run: Found) -> Found:
    found = {key: value for key, value in run.get("found", {}).items() if key != "ticks"}
    return {**run, "found": found}


def tables(found: Found) -> list[Measurement]:
    """Three tables of the program's JSON: writers, first stores, INIT. PeerError: no run in it."""
    if not any("found" in run for run in found["runs"]):
        raise PeerError(
            "many writers: no cell had time to run, or all failed; give a larger budget"
        )
    writers = _writers(_grouped(found, "run"))
    writers.notes += notes(found)
    return [writers, _first(_grouped(found, "first")), _init(_grouped(found, "init"))]


def _grouped(found: Found, kind: str) -> dict[Key, list[Found]]:
    groups: dict[Key, list[Found]] = {}
    for run in found["runs"]:
        if run["kind"] == kind and "found" in run:
            key = (run["pattern"], run["threads"], run["way"])
            groups.setdefault(key, []).append(run["found"])
    return dict(sorted(groups.items(), key=lambda item: (item[0][0], item[0][1])))


def notes(found: Found) -> list[str]:
    """What the reader of the tables has to know: the computer, and what is not in them."""
    processors, failed = found["processors"], [run for run in found["runs"] if "failed" in run]
    lines = [
        f"{processors} processors, Linux {found['kernel']}, {found['size'] >> 20} MiB of memory, "
        f"target in memory, {found['used_s']:.0f} s of {found['budget_s']} s."
    ]
    more = sorted({run["threads"] for run in found["runs"] if run["threads"] > processors})
    if more:
        lines.append(
            f"{', '.join(map(str, more))} threads share {processors} processors: such a row says "
            "nothing about that many processors."
        )
    if processors < 14:
        lines.append("14 writers were left out: that needs 14 processors.")
    if found["without_time"]:
        lines.append(f"Without time: {len(found['without_time'])} of {found['cells']} cells.")
    lines += sorted({f"Failed: {run['way']}: {run['failed']}." for run in failed})
    return lines


def _kept(run: Found, same: bool) -> float | None:
    """Share of the speed; None: the writers never ran before the dump."""
    try:
        speed = Speed(run)
    except PeerError:
        return None
    return speed.share(SAME_NS if same else speed.length)


def _share(runs: Sequence[Found], same: bool) -> float:
    shares = [share for run in runs if (share := _kept(run, same)) is not None]
    return median(shares) if shares else float("nan")


def _writers(groups: dict[Key, list[Found]]) -> Measurement:
    result = Measurement("many", "Many writers during a dump: share of their speed", WRITERS)
    for (pattern, threads, way), runs in groups.items():
        dumps = [run["dumps"][0] for run in runs]
        ours = way.startswith("ours")
        result.rows.append([
            pattern, str(threads), way,
            f"{_share(runs, same=False):.1%}", f"{_share(runs, same=True):.1%}",
            f"{median(dump['swept'] - dump['begun'] for dump in dumps) / 1e9:.2f}",
            f"{median(dump['slot_waits'] for dump in dumps):,.0f}" if ours else "-",
            f"{max(dump['save_max_ns'] for dump in dumps) / MS:.2f}" if way != "fork" else "-",
            f"{median(run['during']['p999'] for run in runs) / US:,.1f}",
            f"{max(run['during']['max'] for run in runs) / MS:.2f}",
            str(len(runs)),
        ])  # fmt: skip
    result.bars = _writers_bars(groups)
    return result


def _writers_bars(groups: dict[Key, list[Found]]) -> list[Bar]:
    bars = []
    for (pattern, threads, way), runs in groups.items():
        fork = groups.get((pattern, threads, "fork"))
        if not fork:
            continue
        if way == _default(groups) and threads in (2, 4, 8):
            ratio = _share(runs, same=True) / max(_share(fork, same=True), 1e-9)
            bars.append(
                Bar(f"{pattern}, {threads} writers: same 600 ms, ours / fork", ratio, TIMES)
            )
        if way == "ours, sigbus, pool auto":
            late = [median(run["during"]["p999"] for run in each) for each in (runs, fork)]
            text = f"{pattern}, {threads} writers: p99.9 of a store, sigbus / fork"
            bars.append(Bar(text, late[0] / max(late[1], 1e-9), LATE, at_least=False))
    return bars


def _default(groups: dict[Key, list[Found]]) -> str:
    return next((way for way in DEFAULTS if any(key[2] == way for key in groups)), "")


def _first(groups: dict[Key, list[Found]]) -> Measurement:
    """A row for each number of threads, a column for each way and size of a granule."""
    columns = sorted({(pattern, way) for pattern, _, way in groups}, key=lambda c: (c[1], c[0]))
    result = Measurement(
        "many-first",
        "First store to a granule, ns a granule, all threads together",
        ["threads", *(f"{way}, {pattern}" for pattern, way in columns)],
    )
    for threads in sorted({key[1] for key in groups}):
        cells = []
        for pattern, way in columns:
            runs = groups.get((pattern, threads, way), [])
            cells.append(f"{_cost(runs):,.0f}" if runs else "")
        result.rows.append([str(threads), *cells])
        ours, floor = (
            groups.get(("64 KiB", threads, way)) for way in ("ours, sigbus, pool = RAM",
                                                              "open-uffd, copy")
        )  # fmt: skip
        if ours and floor:
            text = f"{threads} threads: a granule on sigbus / its floor"
            result.bars.append(Bar(text, _cost(ours) / _cost(floor), FLOOR, at_least=False))
    return result


def _cost(runs: Sequence[Found]) -> float:
    costs = [turn["armed_ns"] / run["granules"] for run in runs for turn in run["turns"]]
    return float(median(costs))


def _init(groups: dict[Key, list[Found]]) -> Measurement:
    result = Measurement("many-init", "INIT, ms a GiB", ["way", "first", "again, 1 % changed"])
    for (_, _, way), runs in groups.items():
        first = median(_per_gib(run, run["inits_ns"][0]) for run in runs)
        again = median(_per_gib(run, one) for run in runs for one in run["inits_ns"][1:])
        result.rows.append([way, f"{first:,.0f}", f"{again:,.0f}"])
        result.bars.append(Bar(f"{way}: INIT again, ms a GiB", again, 10.0, at_least=False))
    return result


def _per_gib(run: Found, ns: float) -> float:
    return float(ns / MS / (run["size"] / GIB))


def markdown(table: Measurement) -> list[str]:
    """Lines of a table for docs/performance.md."""
    rows = [table.columns, ["--"] * len(table.columns), *table.rows]
    return [f"| {' | '.join(row)} |" for row in rows]
