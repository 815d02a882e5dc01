# SPDX-License-Identifier: GPL-2.0-or-later
"""Closing: what `with` wants of an object that has a close()."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """`with` closes it at the end, whatever happened."""

    @abstractmethod
    def close(self) -> None:
        """Give up what it holds; harmless when done twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
