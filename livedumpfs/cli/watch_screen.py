# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture of `watch`, for a terminal of any size: lines of text, made from samples. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group
from rich.text import Text

from livedumpfs import pause
from livedumpfs.cli.page_colours import cells, legend
from livedumpfs.cli.watch_figures import History, Rates, Sample, histogram
from livedumpfs.cli.watch_keys import HELP, WAY_OUT, Dialogue
from livedumpfs.errors import printable
from livedumpfs.page_map import spread
from livedumpfs.units import format_duration, format_size

_GUTTER_FROM: Final = 60
"""Columns from which on each row of the map begins with its place in the memory."""
_MAP_LEAST: Final = 3
"""Rows of the map, before other lines give way to it."""
_BAR: Final = 20
_BARS: Final = "▁▂▃▄▅▆▇█"
_DIGITS: Final = "12345678"
_VERDICTS: Final = {"consistent": "green", "torn": "red", "incomplete": "red"}
_GONE: Final = ("UNDEFINED", "UNINIT")
"""States in which there is no dump."""
_NO_DUMP: Final = "no dump yet: `livedump dump TARGET` in another terminal takes one"


@dataclass(frozen=True)
class Look:
    """Of the terminal."""

    width: int
    height: int
    coloured: bool = False
    ascii_only: bool = False


def screen(history: History, dialogue: Dialogue, look: Look, silent_s: float = 0.0) -> Group:
    """All lines of the picture. `silent_s`: seconds for which the host has not answered; 0: it
    does."""
    return Group(*lines(history, dialogue, look, silent_s))


def lines(history: History, dialogue: Dialogue, look: Look, silent_s: float = 0.0) -> list[Text]:
    """No more than the terminal has rows, none wider than it. In a low terminal the map keeps some
    rows, and what is least worth goes."""
    sample = history.last
    if sample is None:
        return _cut([_line("waiting for the host")], look)
    rates = history.rates()
    named: dict[str, Text] = {
        "head": _head(sample),
        "state": _state(sample, look),
        "map": Text(),
        "legend": legend(coloured=look.coloured, lettered=dialogue.lettered),
        "progress": _progress(sample, rates, look),
        "faults": _faults(sample, rates),
        "target": _target(sample, rates),
        "stalls": _stalls(sample, look),
        "keys": _keys(dialogue, silent_s),
    }
    for least in ("head", "target", "stalls", "faults", "legend", "state", "progress"):
        if len(named) - 1 + _MAP_LEAST > look.height:
            del named[least]
    if look.height < len(named):
        del named["map"]
    order = list(named)
    found = list(named.values())
    if "map" in named:
        place = order.index("map")
        rows = max(1, look.height - len(named) + 1)
        found[place : place + 1] = _map(history, sample, dialogue, look, rows)
    return _cut(found, look)


def _cut(found: Sequence[Text], look: Look) -> list[Text]:
    kept = list(found)[: max(look.height, 0)]
    for line in kept:
        line.no_wrap, line.overflow = True, "crop"
        line.truncate(max(look.width, 0), overflow="crop")
    return kept


def _line(*parts: str) -> Text:
    """Parts with two blanks between them, without the empty ones. Escaped: the host's words may be
    another user's."""
    return Text("  ".join(printable(part) for part in parts if part))


# ------------------------------------------------------------------------ lines


def _head(sample: Sample) -> Text:
    machine = sample.stats["machine"]
    counters = sample.counters
    granule = counters.get("granule_size", 0)
    granules = f"{counters['granules']} granules of {format_size(granule)}" if granule else ""
    return Text.assemble(
        ("livedump watch", "bold"),
        "  ",
        _line(str(machine.get("name", "")), format_size(sample.progress.get("total", 0)), granules),
    )


def _state(sample: Sample, look: Look) -> Text:
    stats = sample.stats
    words = Text.assemble((str(stats["state"]), "bold"))
    verdict, so_far = stats.get("verdict"), stats.get("so_far")
    known = str(verdict or so_far or "")
    if known:
        words.append("  ")
        words.append(
            known + ("" if verdict else " so far"),
            style=_VERDICTS.get(known, "") if look.coloured else "",
        )
    target = stats.get("target") or ("memory only" if known else "")
    for part in (target, stats.get("reason")):
        if part:
            words.append(f"  {printable(str(part))}")
    return words


def _progress(sample: Sample, rates: Rates, look: Look) -> Text:
    progress = sample.progress
    total, done, lost = (progress.get(name, 0) for name in ("total", "done", "lost"))
    share = done / total if total else 0.0
    full = round(share * _BAR)
    words = [f"{math.floor(share * 100):3d}%", f"{format_size(done)} of {format_size(total)}"]
    if rates.saved:
        words.append(f"{format_size(rates.saved)}/s")
    if rates.left_s is not None:
        words.append(f"{format_duration(rates.left_s * 1e9)} to go")
    line = Text("[" + "#" * full + "-" * (_BAR - full) + "] ")
    line.append_text(_line(*words))
    if lost:
        line.append(f"  {format_size(lost)} lost", style="bold red" if look.coloured else "bold")
    return line


def _faults(sample: Sample, rates: Rates) -> Text:
    counters = sample.counters
    waits, waited = counters.get("slot_waits", 0), counters.get("slot_wait_ns", 0)
    return _line(
        f"faults {counters.get('faults', 0)}",
        f"{rates.faults:.0f}/s" if rates.faults else "",
        f"stolen {counters.get('steals', 0)}",
        f"waits for a slot {waits}" + (f", {format_duration(waited)}" if waits else ""),
        f"slots {counters.get('slots', 0)}",
    )


def _target(sample: Sample, rates: Rates) -> Text:
    counters = sample.counters
    stop = pause.parts(counters).get("pause_ns", 0)
    return _line(
        f"written {format_size(counters.get('bytes_written', 0))}",
        f"{format_size(rates.written)}/s" if rates.written else "",
        f"machine stopped for {format_duration(stop)}" if stop else "",
    )


def _stalls(sample: Sample, look: Look) -> Text:
    """The histogram of the time in the handler, in powers of two, its heights by the logarithm of
    the counts: a single long stall must be seen beside ten thousand short ones."""
    first, counts = histogram(list(sample.counters.get("handler_ns", ())))
    if not counts:
        return _line("stalls none")
    marks = _DIGITS if look.ascii_only else _BARS
    most = math.log2(max(counts) + 1)
    heights = (math.ceil(math.log2(n + 1) / most * len(marks)) for n in counts)
    drawn = "".join(marks[height - 1] if height else " " for height in heights)
    longest = format_duration(sample.counters.get("stall_max_ns", 0))
    ends = format_duration(2**first), format_duration(2.0 ** (first + len(counts)))
    return Text(f"stalls {ends[0]} |{drawn}| {ends[1]}  longest {longest}")


def _keys(dialogue: Dialogue, silent_s: float) -> Text:
    if dialogue.question:
        return Text(dialogue.question, style="bold reverse")
    if silent_s:
        return Text(f"the host has not answered for {silent_s:.0f} s", style="bold")
    if dialogue.notice:
        return Text.assemble((printable(dialogue.notice), "bold"), "  ", (WAY_OUT, "dim"))
    return Text(HELP, style="dim")


# -------------------------------------------------------------------------- map


def _map(history: History, sample: Sample, dialogue: Dialogue, look: Look, rows: int) -> list[Text]:
    """Exactly `rows` rows."""
    if not history.pages:
        known = sample.counters.get("granules") and sample.stats["state"] not in _GONE
        said = "this host has no page map: it is of an earlier version" if known else _NO_DUMP
        return [_line(said), *[Text() for _ in range(rows - 1)]]
    gutter = _gutter(sample.progress.get("total", 0)) if look.width >= _GUTTER_FROM else None
    width = max(1, look.width - (len(gutter(0)) if gutter else 0))
    letters = spread(history.pages, rows * width).decode()
    found = []
    for row in range(rows):
        part = letters[row * width : (row + 1) * width]
        line = Text.assemble((gutter(row / rows), "dim")) if gutter else Text()
        line.append_text(cells(part, coloured=look.coloured, lettered=dialogue.lettered))
        found.append(line)
    return found


def _gutter(total: int) -> Callable[[float], str]:
    """The words before a row that begins at that share of the memory: its offset in the arena."""
    digits = len(f"{max(total - 1, 0):x}")

    def words(share: float) -> str:
        return f"{int(share * total):0{digits}x} "

    return words
