# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the results of a run: results.md with the tables, and a JSON file with every sample."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measurement import Bar, Measurement
from results import Outcome, Results

from livedumpfs.units import format_size

BAR_COLUMNS = ["measurement", "bar", "found", "limit", ""]


SAMPLES = "samples.json"


def write(results: Results, out: Path, samples: Path) -> None:
    """Write results.md into the folder `out` and samples.json into the folder `samples`. Both
    folders must exist.

    The page is small and kept with the documents; the samples are megabytes. The page names the
    plots, which plots.py draws.
    """
    text = json.dumps(as_json(results), indent=1, default=_plain)
    (samples / SAMPLES).write_text(text + "\n")
    (out / "results.md").write_text("\n".join(_page(results)) + "\n")


def as_json(results: Results) -> dict[str, Any]:
    """The results in JSON types, but samples may hold numpy values."""
    return {**asdict(results), "outcomes": [_outcome(outcome) for outcome in results.outcomes]}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    entry = asdict(outcome)
    if outcome.found:
        bars = [{**asdict(bar), "held": bar.held} for bar in outcome.found.bars]
        entry["found"]["bars"] = bars
    return entry


def bar_rows(measurements: Sequence[Measurement]) -> list[list[str]]:
    """A row for each bar, under BAR_COLUMNS."""
    return [
        [m.name, bar.text, f"{bar.found:.3g}", limit(bar), "held" if bar.held else "missed"]
        for m in measurements
        for bar in m.bars
    ]


def limit(bar: Bar) -> str:
    """The limit as text."""
    return f"{'at least' if bar.at_least else 'at most'} {bar.limit:g}"


def computer_line(results: Results) -> str:
    """One sentence about the computer."""
    c = results.computer
    kind = "virtual cores" if c["virtual"] else "cores"
    return (
        f"{c['cpu']}, {c['cores']} {kind}, {format_size(c['memory'])}, Linux {c['kernel']}, "
        f"Python {c['python']}, numpy {c['numpy']}, gcc {c['gcc']}; "
        f"load {c['load']:.1f} when it began; commit {c['commit'] or 'unknown'}."
    )


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as Python's."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _page(results: Results) -> Iterator[str]:
    yield "# Measured side by side"
    yield ""
    yield f"Written by `{results.command}`, {results.began} UTC. {computer_line(results)}"
    yield ""
    yield "Medians of runs that took turns. Trust the ratios: the times are this computer's."
    yield f"Every sample is in the {SAMPLES} of the run, which the repository does not keep."
    yield ""
    rows = bar_rows(results.measurements)
    if rows:
        yield "## What must hold"
        yield ""
        yield from table(BAR_COLUMNS, rows)
        yield ""
    for outcome in results.outcomes:
        yield from _section(outcome)
    if results.absent:
        yield f"Not there: {', '.join(results.absent)}."


def _section(outcome: Outcome) -> Iterator[str]:
    found = outcome.found
    if found is None:
        yield f"## {outcome.name}"
        yield ""
        yield f"Failed: {' '.join(outcome.failed.split())}"
        yield ""
        return
    yield f"## {found.title}"
    yield ""
    yield from table(found.columns, found.rows)
    yield ""
    for note in found.notes:
        yield note
        yield ""
    for plot in found.plots:
        yield f"![{plot.title}]({plot.name}.svg)"
        yield ""
    yield f"Took {outcome.seconds:.0f} s; load {outcome.load:.1f} when it began."
    yield ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield _line(columns)
    yield _line(["---"] * len(columns))
    for row in rows:
        yield _line(row)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
