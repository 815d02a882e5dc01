# SPDX-License-Identifier: GPL-2.0-or-later
"""The progress bar of a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, Self, TextIO

from rich.console import Console, RenderableType
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

from livedumpfs.cli.page_colours import cells, has_colours
from livedumpfs.errors import printable
from livedumpfs.page_map import spread
from livedumpfs.units import format_size

_MAP_EVERY_S: Final = 0.25
"""Seconds between two looks at the page map."""


class RateColumn(ProgressColumn):
    """Bytes per second, in the unit of all other output; rich counts in thousands."""

    def render(self, task: Task) -> Text:
        """Empty until the rate is known."""
        rate = task.finished_speed or task.speed
        return Text(f"{format_size(rate)}/s" if rate else "", style="progress.data.speed")


class MappedProgress(Progress):
    """The page map in one row above the bar; none while it is not known."""

    pages = b""

    def get_renderables(self) -> Iterable[RenderableType]:
        """As Progress."""
        if self.pages:  # rich also asks before there is a console
            letters = spread(self.pages, self.console.width).decode()
            yield cells(letters, coloured=has_colours(self.console))
        yield from super().get_renderables()


class Bar:
    """A bar with rate and remaining time, below the small form of the picture of `watch`."""

    def __init__(
        self, label: str, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._next_map = clock, 0.0
        self._bar = MappedProgress(
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

    def picture(self, pages: Callable[[], bytes]) -> None:
        """As Display."""
        if self._clock() >= self._next_map:
            self._next_map = self._clock() + _MAP_EVERY_S
            self._bar.pages = pages()

    def warn(self, text: str) -> None:
        self._bar.console.print(f"livedump: {printable(text)}", markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def bar(label: str, stream: TextIO) -> Bar:
    return Bar(label, Console(file=stream))
