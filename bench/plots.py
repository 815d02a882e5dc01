# SPDX-License-Identifier: GPL-2.0-or-later
"""The curves of a measurement as pictures, PNG and SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measurement import Curve, Plot

INCHES = (7.0, 4.2)
DPI = 110
MARKERS = "osD^v<>Ph*"
MOST_MARKED = 30
"""Points of a curve; one with more is a line only."""

# The same curves give the same files.
mpl.rcParams["svg.hashsalt"] = "livedumpfs"
mpl.rcParams["svg.fonttype"] = "none"
UNDATED = {"Date": None}


def draw(plot: Plot, out: Path) -> list[Path]:
    """The files made, in the folder `out`: `name`.png and `name`.svg."""
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for i, curve in enumerate(plot.curves):
        _add(axes, curve, MARKERS[i % len(MARKERS)])
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    axes.grid(visible=True, which="major", alpha=0.3)
    if plot.curves:
        axes.legend(fontsize="small")
    png, svg = out / f"{plot.name}.png", out / f"{plot.name}.svg"
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(svg, metadata=UNDATED)
    return [png, svg]


def _add(axes: Axes, curve: Curve, marker: str) -> None:
    marked = marker if len(curve.x) <= MOST_MARKED else None
    (line,) = axes.plot(curve.x, curve.y, marker=marked, markersize=4, label=curve.label)
    if curve.low and curve.high:
        axes.fill_between(
            curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.15, linewidth=0
        )
