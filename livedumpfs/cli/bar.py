# SPDX-License-Identifier: GPL-2.0-or-later
"""The progress bar of a terminal."""

from __future__ import annotations

from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from livedumpfs.errors import printable
from livedumpfs.units import format_size


class RateColumn(ProgressColumn):
    """Bytes per second, in the unit of all other output; rich counts in thousands."""

    def render(self, task: Task) -> Text:
        """Empty until the rate is known."""
        rate = task.finished_speed or task.speed
        return Text(f"{format_size(rate)}/s" if rate else "", style="progress.data.speed")


class Bar:
    """A bar with rate and remaining time."""

    def __init__(self, label: str, console: Console) -> None:
        self._bar = Progress(
            TextColumn(label),
            BarColumn(),
            DownloadColumn(binary_units=True),
            RateColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[lost]}", style="bold red"),
            console=console,
        )
        self._task = self._bar.add_task(label, total=None, lost="")

    def update(self, done: int, total: int, lost: int) -> None:
        text = f"{format_size(lost)} lost" if lost else ""
        self._bar.update(self._task, completed=done, total=total, lost=text)

    def warn(self, text: str) -> None:
        self._bar.console.print(f"livedump: {printable(text)}", markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def bar(label: str, stream: TextIO) -> Bar:
    return Bar(label, Console(file=stream))
