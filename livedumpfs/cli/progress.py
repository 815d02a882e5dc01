# SPDX-License-Identifier: GPL-2.0-or-later
"""The progress of a dump on standard error: a bar on a terminal, else one line a second."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TextIO

from livedumpfs.cli.output import is_quiet, shielded, tell
from livedumpfs.errors import printable
from livedumpfs.units import format_size

LINE_EVERY = 1.0
"""Seconds between two lines."""


class Display(Protocol):
    """Shows how many bytes are saved. A context manager."""

    def update(self, done: int, total: int, lost: int) -> None:
        """Of `total` bytes, `done` are saved, and `lost` never will be."""

    def picture(self, pages: Callable[[], bytes]) -> None:
        """Show the page map, which `pages` gives, where there is a place for it."""

    def warn(self, text: str) -> None:
        """Print a line that stays."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


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

    def picture(self, pages: Callable[[], bytes]) -> None:
        pass

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


class Silence:
    """Nothing but warnings."""

    def update(self, done: int, total: int, lost: int) -> None:
        pass

    def picture(self, pages: Callable[[], bytes]) -> None:
        pass

    def warn(self, text: str) -> None:
        tell(f"livedump: {printable(text)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def display(label: str) -> Display:
    """The display that fits standard error. rich takes longer to load than all else that a command
    does, and only a terminal needs it. A terminal without rich gets lines: what shows a dump must
    not end it. With --quiet there is none."""
    if is_quiet():
        return Silence()
    stream = shielded(sys.stderr)
    if stream.isatty():
        with contextlib.suppress(ImportError):
            from livedumpfs.cli.bar import bar

            return bar(label, stream)
    return Lines(label, stream)
