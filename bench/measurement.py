# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a measurement: a table, bars that must hold, plots, and every sample.

Each `bench/measure_*.py` has one function `measure(effort) -> Measurement`; `bench/suite.py` calls
them and writes the results. A figure is a median of runs that took turns (A B A B).
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Effort:
    """The allowed cost: `make bench` takes about 20 minutes in all, `make bench-quick` under 1."""

    quick: bool
    largest: int
    """Bytes of the largest arena; 16 GiB where the computer has the memory."""

    def repeats(self, full: int, quick: int) -> int:
        """The number of runs for this effort: `full` or `quick`."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Bar:
    """A requirement: `found` at least (or at most) `limit`; a ratio or a figure."""

    text: str
    found: float
    limit: float
    at_least: bool = True

    @property
    def held(self) -> bool:
        """Whether the requirement is met."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot; `low` and `high` are the spread around each y, or empty."""

    label: str
    x: list[float]
    y: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plot:
    """`name` is that of its files; axes say their units."""

    name: str
    title: str
    x: str
    y: str
    curves: list[Curve]
    log_x: bool = False
    log_y: bool = False


@dataclass(slots=True)
class Measurement:
    """`columns` and `rows` are the table as printed; `samples` each run, for the JSON file."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
