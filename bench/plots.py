# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the curves of a measurement as PNG and SVG files."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from measurement import Curve, Plot

INCHES = (7.0, 4.2)
DPI = 110
MARKERS = "osD^v<>Ph*"
MOST_MARKED = 30
"""Most points of a curve that get marks; a longer curve is only a line."""
MOST_TICKS = 10

# A fixed salt: the same curves give the same files.
mpl.rcParams["svg.hashsalt"] = "livedumpfs"
mpl.rcParams["svg.fonttype"] = "none"
UNDATED = {"Date": None}


def draw(plot: Plot, out: Path) -> Path:
    """Draw into the folder `out`. Returns the file `name`.svg."""
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for i, curve in enumerate(plot.curves):
        _add(axes, curve, MARKERS[i % len(MARKERS)])
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    if plot.log_x:
        _make_log(axes, axes.xaxis, "x")
        _name_few(axes, {x for curve in plot.curves for x in curve.x})
    if plot.log_y:
        _make_log(axes, axes.yaxis, "y")
    axes.grid(visible=True, which="major", alpha=0.3)
    if plot.curves:
        axes.legend(fontsize="small")
    svg = out / f"{plot.name}.svg"
    figure.savefig(svg, metadata=UNDATED)
    return svg


def _make_log(axes: Axes, axis: Axis, which: str) -> None:
    """A logarithmic axis with plain numbers, not powers of ten."""
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter())


def _name_few(axes: Axes, values: set[float]) -> None:
    """Put the ticks at the measured values when these are few."""
    if len(values) <= MOST_TICKS:
        axes.set_xticks([], minor=True)
        axes.set_xticks(sorted(values), [f"{value:g}" for value in sorted(values)])


def _add(axes: Axes, curve: Curve, marker: str) -> None:
    marked = marker if len(curve.x) <= MOST_MARKED else None
    (line,) = axes.plot(curve.x, curve.y, marker=marked, markersize=4, label=curve.label)
    if curve.low and curve.high:
        axes.fill_between(
            curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.15, linewidth=0
        )
