# SPDX-License-Identifier: GPL-2.0-or-later
"""OpenFiles: what a mount keeps for each open file, by the number that the kernel names it by."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class OpenFiles(Generic[T]):
    """Any thread may call anything."""

    def __init__(self) -> None:
        self._files: dict[int, T] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, file: T) -> int:
        """Of a file that was opened: its number, above 0, which no other gets."""
        return self.add_as(next(self._numbers), file)

    def add_as(self, number: int, file: T) -> int:
        """The same with a number of the caller's, which no other open file has."""
        with self._lock:
            self._files[number] = file
        return number

    def __getitem__(self, number: int) -> T:
        """KeyError: it is not open, which the kernel does not let happen."""
        return self._files[number]

    def get(self, number: int) -> T | None:
        """None: it is not open."""
        return self._files.get(number)

    def find(self, which: Callable[[T], bool]) -> T | None:
        """One of those that `which` is true of."""
        with self._lock:
            return next(filter(which, self._files.values()), None)

    def drop(self, number: int) -> None:
        """Its last close; harmless when it is not open."""
        with self._lock:
            self._files.pop(number, None)
