# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions. Each is also the built-in one that a caller would expect."""

from __future__ import annotations

import os


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


def printable(text: str) -> str:
    """`text` for a terminal, in one line: what could move its cursor, change its colours or its
    reading direction is made harmless. Paths and names can be somebody else's choice."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def os_cause(errno: int) -> str:
    """The system's sentence for an errno, e.g. "No space left on device"."""
    return os.strerror(errno)
