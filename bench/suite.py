# SPDX-License-Identifier: GPL-2.0-or-later
"""All measurements of bench/measure_*.py: tables on the terminal, files and plots in a folder.

Each measurement runs in its own process: its memory does not affect the figures of the next one,
and a failure does not end the others. A whole run writes docs/performance/, and its samples into
build/bench/; any other run (--quick, --only) writes all into build/bench/. With --out all goes
there.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import computer
import report
from apart import apart
from measurement import Effort, Measurement
from results import Outcome, Results
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from livedumpfs.units import format_size, parse_size

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
NAMES = (
    "stop",
    "busy",
    "guest_stop",
    "stall",
    "writers",
    "many",
    "touch",
    "rate",
    "store",
    "increments",
    "reads",
    "arrays",
    "memory",
    "huge",
    "growth",
    "hosting",
)
"""Names of the measurements, in the order in which they run."""
QUICK_LARGEST = 1 << 30
FULL_LARGEST = 16 << 30
SPARE = 2 << 30
"""Bytes of memory left to other programs."""


def largest(quick: bool) -> int:
    """Bytes of the largest arena: a power of two that fits into memory."""
    free = max(computer.memory()["MemAvailable"] - SPARE, QUICK_LARGEST)
    return min(QUICK_LARGEST if quick else FULL_LARGEST, 1 << (free.bit_length() - 1))


def is_there(name: str) -> bool:
    """Whether the measurement exists."""
    return (HERE / f"measure_{name}.py").exists()


def measure(name: str, effort: Effort) -> Measurement:
    """Run one measurement in this process. Raises what it raises."""
    found: Measurement = importlib.import_module(f"measure_{name}").measure(effort)
    return found


def measure_apart(name: str, effort: Effort) -> Outcome:
    """Run one measurement in a new process."""
    load, before = computer.load(), time.monotonic()
    found, failed = None, ""
    try:
        found = apart(measure, name, effort)
    except (Exception, SystemExit) as error:
        failed = f"{type(error).__name__}: {error}"
    return Outcome(name, time.monotonic() - before, load, found, failed)


def run(names: Sequence[str], effort: Effort, console: Console) -> Results:
    """Run those that exist, one after the other; each is shown when it is done."""
    command = shlex.join(["bench/suite.py", *sys.argv[1:]])
    began = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    results = Results(command, effort, computer.describe(), began)
    for name in names:
        if not is_there(name):
            results.absent.append(name)
            console.print(f"{name}: there is no bench/measure_{name}.py", style="yellow")
            continue
        with console.status(f"measuring {name}"):
            outcome = measure_apart(name, effort)
        results.outcomes.append(outcome)
        show(outcome, console)
    return results


def show(outcome: Outcome, console: Console) -> None:
    """Print the table and the notes of one measurement."""
    found = outcome.found
    if found is None:
        console.print(f"{outcome.name} failed: {escape(outcome.failed)}", style="red")
        return
    console.print(_table(f"{found.title} ({outcome.seconds:.0f} s)", found.columns, found.rows))
    for note in found.notes:
        console.print(escape(note), style="dim")


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(escape(column), justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def write(results: Results, out: Path, samples: Path) -> None:
    """Report and plots into the folder `out`, samples into the folder `samples`."""
    # Imported late: only plots need matplotlib.
    from plots import draw

    for folder in (out, samples):
        folder.mkdir(parents=True, exist_ok=True)
    report.write(results, out, samples)
    for measurement in results.measurements:
        for plot in measurement.plots:
            draw(plot, out)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute, rough figures")
    parser.add_argument(
        "--only", action="append", choices=NAMES, help="this measurement; may be repeated"
    )
    parser.add_argument("--largest", type=parse_size, help="arena; default: up to 16GiB that fit")
    parser.add_argument("--out", type=Path, help="folder of the files")
    return parser.parse_args()


def main() -> None:
    """Exit status 1: a measurement failed. A missed bar is a result, not a failure."""
    args = parse()
    console = Console(width=None if sys.stdout.isatty() else 160)
    effort = Effort(args.quick, args.largest or largest(args.quick))
    whole = not (args.quick or args.only)
    samples = args.out or TOP / "build/bench"
    out = args.out or (TOP / "docs/performance" if whole else samples)
    results = run(args.only or NAMES, effort, console)
    console.print(
        _table("What must hold", report.BAR_COLUMNS, report.bar_rows(results.measurements))
    )
    console.print(f"{report.computer_line(results)} Largest arena {format_size(effort.largest)}.")
    write(results, out, samples)
    console.print(f"Written to {os.path.relpath(out)}, samples to {os.path.relpath(samples)}")
    sys.exit(any(outcome.failed for outcome in results.outcomes))


if __name__ == "__main__":
    main()
