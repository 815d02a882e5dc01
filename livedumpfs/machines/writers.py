# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program holds its writers by, as the two functions that START calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from livedumpfs.errors import WrongType

Callback = Callable[[], object]


class HoldsWriters(Protocol):
    """WriterLock, StepBarrier, or a program's own."""

    def quiesce(self) -> object:
        """Return once nothing writes the arena any more."""

    def resume(self) -> object:
        """Undo one quiesce."""


Writers = HoldsWriters | AbstractContextManager[object]
"""Of a context manager, the block is the instant: a threading.Lock that each writer takes."""


def callbacks_of(writers: Writers) -> tuple[Callback, Callback]:
    """`quiesce` and `resume`. WrongType: it has neither these methods nor those of a context
    manager."""
    if isinstance(writers, type):
        raise WrongType(f"writers must be an object, not the class {writers.__name__}")
    quiesce, resume = getattr(writers, "quiesce", None), getattr(writers, "resume", None)
    if callable(quiesce) and callable(resume):
        return quiesce, resume
    if isinstance(writers, AbstractContextManager):
        return writers.__enter__, lambda: writers.__exit__(None, None, None)
    raise WrongType(
        f"writers must have quiesce() and resume(), or be a context manager, "
        f"not {type(writers).__name__}",
        hint="WriterLock and StepBarrier of livedumpfs are such",
    )
