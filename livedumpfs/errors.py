# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions. Each one is also a subclass of the built-in exception that fits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from errno import EIO
from typing import Final, Self

Wording = Callable[[str], str]
"""From the name of a setting to its spelling in an interface (Python, control/, command line)."""
_SWITCHES: Final = ("force", "buffered", "allow_other", "track")
_SETTING: Final = re.compile(r"<([a-z_]+)>")
_FROM_CONTROL: Final = re.compile(r"(.*) \(([^()]*\bcontrol/[a-z_]+[^()]*)\)")


def in_python(name: str) -> str:
    """A setting as an argument of a Python function."""
    return f"{name}=True" if name in _SWITCHES else name


def in_control(name: str) -> str:
    """A setting as a file of a host's mount."""
    return f"control/{name}"


def split_hint(sentence: str) -> tuple[str, str]:
    """Message and hint from the sentence in control/error. The hint is split off when it names a
    setting."""
    found = _FROM_CONTROL.fullmatch(sentence)
    if not found:
        return sentence, ""
    return found[1], re.sub(r"\bcontrol/([a-z_]+)", r"<\1>", found[2])


class LivedumpError(Exception):
    """One clear sentence: what object, what cause. `hint` says what to do; `errno` is positive or
    0.

    A hint names a setting as `<force>`; each interface shows it in its own spelling, see worded().
    """

    errno: int | None
    hint: str

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.errno = errno
        self.hint = hint

    def __str__(self) -> str:
        return self.worded(in_python)

    def worded(self, wording: Wording) -> str:
        """The sentence with its settings spelled by `wording`."""
        if not self.hint:
            return printable(self.message)
        hint = _SETTING.sub(lambda found: wording(found[1]), self.hint)
        return printable(f"{self.message} ({hint})")


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
    """The data is not a dump, or one of another version, or damaged."""


class UsageError(LivedumpError, ValueError):
    """Arguments that make no sense."""


class WrongType(UsageError, TypeError):
    """An argument of a wrong type."""


class MissingPackage(LivedumpError, ImportError):
    """A Python package of an extra is not installed."""


class InconsistentDump(LivedumpError, OSError):
    """A dump that was to be saved, awaited or used is not consistent. `errno` is that of the dump's
    first error, EIO when there was none. Calls that raise it take `check=False` to accept such a
    dump."""

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
        """The dump's path; None: in memory."""
        self.failure = failure
        """The dump's first error in one sentence; None: there was none, pages were lost by
        policy."""
        self.lost = lost
        """Number of lost pages."""
        self.saved = saved
        """Number of saved pages."""

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
        """Build the sentence. `number`: the errno behind it, 0 for none; `granules`: how many in
        all, lost, and not in a final state; `pages`: pages of a granule."""
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
    """`text` for a terminal, in one line. Escapes what could move the cursor, change colours or the
    reading direction, and bytes of a path that are not text: paths and names may come from other
    users."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # os.fsdecode makes these from bytes that are not text
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def os_cause(errno: int) -> str:
    """The system's sentence for an errno, e.g. "No space left on device"."""
    return os.strerror(errno)
