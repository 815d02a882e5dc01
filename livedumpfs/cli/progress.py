# SPDX-License-Identifier: GPL-2.0-or-later
"""The progress of a dump on standard error: a bar on a terminal, else one line a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from livedumpfs.cli.output import shielded
from livedumpfs.cli.rate import RateColumn
from livedumpfs.errors import printable
from livedumpfs.units import format_size

LINE_EVERY = 1.0
"""Seconds between two lines."""


class Display(Protocol):
    """Shows how many bytes are saved. A context manager."""

    def update(self, done: int, total: int, lost: int) -> None:
        """Of `total` bytes, `done` are saved, and `lost` never will be."""

    def warn(self, text: str) -> None:
        """Print a line that stays."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


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


class Lines:
    """A line at the start, and one a second, for logs and pipes."""

    def __init__(
        self, label: str, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._label = label
        self._stream = stream
        self._clock = clock
        self._first: tuple[float, int] | None = None
        self._next = 0.0

    def update(self, done: int, total: int, lost: int) -> None:
        now = self._clock()
        if self._first is None:
            self._first = (now, done)
        elif now < self._next:
            return
        self._next = now + LINE_EVERY
        self._stream.write(f"{self._line(now, done, total, lost)}\n")

    def warn(self, text: str) -> None:
        self._stream.write(f"livedump: {printable(text)}\n")

    def _line(self, now: float, done: int, total: int, lost: int) -> str:
        assert self._first is not None
        began, before = self._first
        words = [f"{self._label} {done * 100 // max(total, 1):3d}%"]
        words.append(f"{format_size(done)} of {format_size(total)}")
        if now > began and done > before:
            rate = (done - before) / (now - began)
            words += [f"{format_size(rate)}/s", f"{(total - done - lost) / rate:.0f} s to go"]
        if lost:
            words.append(f"{format_size(lost)} lost")
        return ", ".join(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def display(label: str) -> Display:
    """The display that fits standard error."""
    stream = shielded(sys.stderr)
    if stream.isatty():
        return Bar(label, Console(file=stream))
    return Lines(label, stream)
