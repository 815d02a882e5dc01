# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions. Each is also the built-in one that a caller would expect."""

from __future__ import annotations

import os
from errno import EIO
from typing import Self


class LivedumpError(Exception):
    """One clear sentence: what object, what cause; `hint` says what to do; `errno` is positive
    or 0."""

    errno: int | None
    hint: str

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.errno = errno
        self.hint = hint

    def __str__(self) -> str:
        return printable(f"{self.message} ({self.hint})" if self.hint else self.message)


class StateError(LivedumpError, OSError):
    """A step that the dump's state does not allow: EINVAL for the wrong order, EBUSY for a
    second INIT."""


class TargetError(LivedumpError, OSError):
    """The target cannot be opened, checked, written or synced."""


class MachineError(LivedumpError, OSError):
    """The machine cannot be built, stopped or armed."""


class HostError(LivedumpError, OSError):
    """No host runs, several run, or the mount is not there."""


class InvalidDump(LivedumpError, ValueError):
    """Not a dump, of another version, or damaged."""


class UsageError(LivedumpError, ValueError):
    """Arguments that make no sense."""


class WrongType(UsageError, TypeError):
    """An argument of a type that makes no sense there."""


class InconsistentDump(LivedumpError, OSError):
    """A dump that was to be saved, awaited or used, and is not consistent; `errno` is that of its
    first error, EIO when it had none. Calls that raise it have `check=False` for those who take
    such a dump too."""

    def __init__(
        self,
        message: str,
        *,
        errno: int,
        verdict: str,
        hint: str = "",
        target: str | None = None,
        failure: str | None = None,
        lost: int = 0,
        saved: int = 0,
    ) -> None:
        super().__init__(message, errno=errno, hint=hint)
        self.verdict = verdict
        """"torn" or "incomplete"."""
        self.target = target
        """Where it lies; None: in memory."""
        self.failure = failure
        """Its first error in one sentence; None: there was none, pages were lost by policy."""
        self.lost = lost
        """Pages of the memory that are lost."""
        self.saved = saved
        """Pages of the memory that it has."""

    @classmethod
    def of(
        cls,
        verdict: str,
        target: str | None,
        reason: str | None,
        number: int,
        *,
        granules: tuple[int, int, int],
        pages: int,
    ) -> Self:
        """Its sentence from these. `number`: the errno behind it, 0 for none; `granules`: all,
        lost, and not in a final state; `pages`: of a granule."""
        every, lost, left = granules
        has = every - lost - left
        where = f"the dump on {target}" if target else "the snapshot in memory"
        why = f": {reason}" if reason else ""
        return cls(
            f"{where} is {verdict}{why}; it has {has} of {every} granules",
            errno=number or EIO,
            hint="open_dump reads what is there; check=False takes it as it is" if target else "",
            verdict=verdict,
            target=target,
            failure=reason,
            lost=lost * pages,
            saved=has * pages,
        )


def printable(text: str) -> str:
    """`text` for a terminal, in one line: what could move its cursor, change its colours or its
    reading direction is made harmless. Paths and names can be somebody else's choice."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def os_cause(errno: int) -> str:
    """The system's sentence for an errno, e.g. "No space left on device"."""
    return os.strerror(errno)
