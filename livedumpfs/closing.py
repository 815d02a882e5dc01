# SPDX-License-Identifier: GPL-2.0-or-later
"""Base class for objects with a close(), to be used in `with` statements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """`with` calls close() at the end of its block, also after an exception."""

    @abstractmethod
    def close(self) -> None:
        """Release what the object holds; harmless when done twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
