# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that LiveDump was given, or the one that is meant by an arena."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from livedumpfs.core.arena import Arena
from livedumpfs.errors import UsageError, WrongType
from livedumpfs.machines.machine import Machine
from livedumpfs.machines.threads import ThreadMachine
from livedumpfs.machines.writers import Writers, callbacks_of

_ASKED: Final = ("arena", "memory_map", "backends", "quiesce", "resume")
"""Of the members of a machine, those that nothing else has."""


def machine_for(
    given: object,
    quiesce: Callable[[], object] | None = None,
    resume: Callable[[], object] | None = None,
    writers: Writers | None = None,
) -> Machine:
    """A machine is itself, an arena's is the program's threads. WrongType (UsageError, TypeError):
    neither, or callbacks that cannot be called; UsageError: callbacks for a machine, or both
    callbacks and writers."""
    if writers is not None:
        if quiesce or resume:
            raise UsageError("writers takes the place of quiesce and resume: give one of them")
        quiesce, resume = callbacks_of(writers)
    for name, function in (("quiesce", quiesce), ("resume", resume)):
        if function is not None and not callable(function):
            raise WrongType(f"{name} must be a function, not {_kind(function)}")
    if isinstance(given, Arena):
        return ThreadMachine(given, quiesce, resume)
    if isinstance(given, np.ndarray):
        raise WrongType(
            "LiveDump takes an arena or a machine, not an array: only memory of an arena can be "
            "dumped",
            hint="make the array by Arena(...).array(...), and give LiveDump the arena",
        )
    if isinstance(given, type) or not all(hasattr(given, name) for name in _ASKED):
        raise WrongType(
            f"LiveDump takes an arena or a machine, not {_kind(given)}",
            hint="Arena(...) is memory for arrays that can be dumped",
        )
    if quiesce or resume:
        raise UsageError("quiesce, resume and writers go with an arena; a machine has its own")
    machine: Machine = given  # type: ignore[assignment]
    return machine


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
