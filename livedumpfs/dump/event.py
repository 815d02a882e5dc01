# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpEvent: what happened to a dump, for logs and for what is counted over a host's whole life."""

from __future__ import annotations

import enum
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from livedumpfs.dump.counters import Counters
from livedumpfs.formats import VerdictWord


class Happened(enum.Enum):
    """Of a dump, in this order; FAILED comes in place of INIT, or at any time after it."""

    INIT = "init"
    """INIT is done."""
    START = "start"
    """The snapshot instant is taken, and the machine runs again."""
    FINISH = "finish"
    """The verdict is there: the dump is sealed, or will never be."""
    RELEASE = "release"
    """It has gone."""
    FAILED = "failed"
    """A step was not taken."""


@dataclass(frozen=True)
class DumpEvent:
    """One thing that happened."""

    what: Happened
    dump_id: bytes
    """16 bytes; b"": of an INIT that failed."""
    target: str | None = None
    """None: memory only, or not known yet."""
    verdict: VerdictWord | None = None
    """As the dump says it of itself at that moment."""
    reason: str | None = None
    """In one sentence: why it is not consistent, or why the step was not taken."""
    released: str | None = None
    """RELEASE: by what, and in which state, in one sentence."""
    step: str = ""
    """FAILED: the step that was not taken, such as "INIT"."""
    errno: int = 0
    """Of the first error; 0: none."""
    counters: Counters = field(default_factory=Counters)


Observer = Callable[[DumpEvent], None]
"""Is called on the thread that took the step, which holds the lock of steps: it must neither wait
nor raise."""


def tell(observers: Iterable[Observer], event: DumpEvent) -> None:
    """Tell each. One that raises, though it must not, changes nothing of the step, which was taken
    or has failed already: the traceback is printed, as that of a thread."""
    for observer in observers:
        try:
            observer(event)
        except Exception:
            known = (*sys.exc_info(), threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(known))
