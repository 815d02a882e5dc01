# SPDX-License-Identifier: GPL-2.0-or-later
"""The progress of a fleet dump on standard error: a bar for each member on a terminal, else a line
a second for all."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from livedumpfs.cli.output import is_quiet, shielded
from livedumpfs.cli.progress import LINE_EVERY
from livedumpfs.errors import printable
from livedumpfs.units import format_size

if TYPE_CHECKING:
    from livedumpfs.fleet.member import News

_ROWS: Final = 20
"""Bars at the most; more members share the last one."""


class FleetDisplay(Protocol):
    """Shows how all members are."""

    def update(self, news: Mapping[str, News]) -> None:
        """Any thread."""


class NoFleetDisplay:
    """With --quiet."""

    def update(self, news: Mapping[str, News]) -> None:
        pass


class FleetLines:
    """For logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = 0.0

    def update(self, news: Mapping[str, News]) -> None:
        """At most a line a second, and one when all have ended."""
        ended = sum(one.outcome is not None for one in news.values())
        now = time.monotonic()
        if now < self._next and ended < len(news):
            return
        self._next = now + LINE_EVERY
        done = sum(one.saved.done for one in news.values())
        total = sum(one.saved.total for one in news.values())
        unread = sum(map(_unread, news.values()))
        same = f", {format_size(unread)} not read: unchanged" if unread else ""
        self._stream.write(
            f"fleet dump {done * 100 // max(total, 1):3d}%, {format_size(done)} of "
            f"{format_size(total)}, {ended} of {len(news)} members{same}\n"
        )


def _unread(news: News) -> int:
    """Bytes that a dump has taken from an earlier one."""
    increment = news.outcome and news.outcome.increment
    return increment.unread if increment else 0


class FleetBars:
    """For a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[word]}", markup=False),
            console=Console(file=stream),
        )
        self._tasks: dict[str, int] = {}

    def update(self, news: Mapping[str, News]) -> None:
        """A bar for each of the first members."""
        for name, one in list(news.items())[:_ROWS]:
            if name not in self._tasks:
                self._tasks[name] = self.bars.add_task(printable(name), total=None, word="")
            word = one.outcome.verdict if one.outcome else format_size(one.saved.total)
            if unread := _unread(one):
                word += f", {format_size(unread)} unchanged"
            self.bars.update(
                self._tasks[name],  # type: ignore[arg-type]
                completed=one.saved.done, total=one.saved.total or None, word=word,
            )  # fmt: skip
        if len(news) > _ROWS:
            self._rest(list(news.values())[_ROWS:])

    def _rest(self, news: list[News]) -> None:
        if "" not in self._tasks:
            self._tasks[""] = self.bars.add_task(f"{len(news)} more", total=None, word="")
        ended = sum(one.outcome is not None for one in news)
        self.bars.update(
            self._tasks[""],  # type: ignore[arg-type]
            completed=sum(one.saved.done for one in news),
            total=sum(one.saved.total for one in news) or None,
            word=f"{ended} ended",
        )


@contextlib.contextmanager
def fleet_display() -> Iterator[FleetDisplay]:
    """The display that fits standard error."""
    if is_quiet():
        yield NoFleetDisplay()
        return
    stream = shielded(sys.stderr)
    if not stream.isatty():
        yield FleetLines(stream)
        return
    shown = FleetBars(stream)
    with shown.bars:
        yield shown
