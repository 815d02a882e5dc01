# SPDX-License-Identifier: GPL-2.0-or-later
"""Increments: the second dump into a store when 1 % of the memory has changed, with and without
tracking; and what tracking costs the machine: the stop, INIT, and stores between the dumps."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from measure_store import CHANGED, CHUNK, empty_folder, stored, timed
from measurement import Bar, Effort, Measurement
from mixed_memory import fill_mixed

from livedumpfs import Arena, DumpSettings, LiveDump
from livedumpfs.units import PAGE_SIZE, format_size

FULL_SIZE, QUICK_SIZE = 4 << 30, 256 << 20
TIME_BAR, BYTES_BAR = 1 / 0.1, 1 / 0.02
KINDS: Final = {
    "tracked": DumpSettings(track=True, backend="sigsegv"),
    "not tracked": DumpSettings(backend="sigsegv"),
}


def change(memory: npt.NDArray[np.uint8], turn: int) -> None:
    """Store a word into each page of 1 % of the granules."""
    rng = np.random.default_rng(turn)
    granules = len(memory) // CHUNK
    for one in rng.choice(granules, int(granules * CHANGED), replace=False):
        words = memory[one * CHUNK : (one + 1) * CHUNK].view(np.uint64)
        words[:: PAGE_SIZE // 8] = rng.integers(0, 1 << 63, CHUNK // PAGE_SIZE, np.uint64)


def pair(
    result: Measurement, dump: LiveDump, memory: npt.NDArray[np.uint8], name: str
) -> tuple[float, float]:
    """A first dump and a second one: how many times longer, and larger, the first was."""
    settings, size = KINDS[name], len(memory)
    with empty_folder(size) as folder:
        place = f"store:{folder / 'store'}"

        def way(_: Path) -> None:
            dump.save(place, settings)

        first = timed(way, folder)
        had = stored(folder)
        change(memory, list(KINDS).index(name))
        second = timed(way, folder)
        more = stored(folder) - had
    for which, cost, kept in (("first", first, had), ("1 % changed", second, more)):
        result.rows.append(
            [name, which, f"{cost.seconds:.2f} s", f"{cost.cpu:.2f} s", format_size(kept)]
        )
    result.samples.append({"way": name, "bytes": size, "first": first.seconds, "had": had,
                           "second": second.seconds, "more": more})  # fmt: skip
    return first.seconds / second.seconds, had / max(more, 1)


def a_stop(dump: LiveDump, settings: DumpSettings) -> tuple[float, float]:
    """Seconds of INIT and of the stop, of a dump in memory."""
    before = time.monotonic()
    dump.init(None, settings)
    init = time.monotonic() - before
    dump.start()
    stop = dump.counters().pause_ns / 1e9
    dump.release()
    return init, stop


def store_to_all(memory: npt.NDArray[np.uint8]) -> float:
    """Seconds of the processor for a store to a page, each page once."""
    before = time.thread_time()
    memory[::PAGE_SIZE] += 1
    return (time.thread_time() - before) * PAGE_SIZE / len(memory)


def costs(result: Measurement, dump: LiveDump, memory: npt.NDArray[np.uint8], repeats: int) -> None:
    """In turns. Between two dumps all pages that exist are stored to, which is the worst for
    INIT."""
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in KINDS}
    existing = memory[: len(memory) // 2]
    for _ in range(repeats):
        for name, settings in KINDS.items():
            a_stop(dump, settings)
            first, again = store_to_all(existing), store_to_all(existing)
            found[name].append((*a_stop(dump, settings), first, again))
    for name, one in found.items():
        init, stop, first, again = (statistics.median(column) for column in zip(*one, strict=True))
        said = f"INIT {init * 1e3:.0f} ms; a store to a page: first {first * 1e9:.0f} ns"
        row = [name, "the stop", f"{stop * 1e6:.0f} us", "", f"{said}, then {again * 1e9:.0f} ns"]
        result.rows.append(row)


def measure(effort: Effort) -> Measurement:
    """Both."""
    size = QUICK_SIZE if effort.quick else min(FULL_SIZE, effort.largest // 2)
    result = Measurement(
        "increments",
        f"Increments of {format_size(size)}",
        ["changes", "what", "time", "processor", "on the disk, or else"],
    )
    with Arena(size) as arena, LiveDump(arena) as dump:
        fill_mixed(arena.live)
        faster, smaller = pair(result, dump, arena.live, "tracked")
        pair(result, dump, arena.live, "not tracked")
        text = "tracked: the first dump's {} over that of the second, 1 % changed"
        result.bars.append(Bar(text.format("time"), faster, TIME_BAR))
        result.bars.append(Bar(text.format("bytes"), smaller, BYTES_BAR))
        costs(result, dump, arena.live, effort.repeats(7, 3))
    return result
