# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command ends: its exit code, and the one sentence behind it when it failed."""

from __future__ import annotations

import enum
import os
import sys

from livedumpfs.errors import InvalidDump, UsageError, printable


class Exit(enum.IntEnum):
    """The exit codes; docs/cli.md promises them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_VALID = 3
    TROUBLE = USAGE  # of `compare`, as cmp has it


def sentence(error: BaseException) -> str:
    """An exception as "object: cause", in one line. Our own say it themselves."""
    if type(error).__str__ is OSError.__str__ and isinstance(error, OSError) and error.errno:
        cause = os.strerror(error.errno)
        return f"{os.fsdecode(error.filename)}: {cause}" if error.filename else cause
    return " ".join(str(error).split()) or type(error).__name__


def exit_code(error: BaseException) -> Exit:
    """3 for a dump that cannot be trusted, 2 for arguments that make no sense, else 1."""
    if isinstance(error, InvalidDump):
        return Exit.NOT_VALID
    if isinstance(error, UsageError):
        return Exit.USAGE
    return Exit.FAILED


def complain(text: str) -> None:
    """`livedump: error: ...` on standard error."""
    print(f"livedump: error: {printable(text)}", file=sys.stderr)


def note(text: str) -> None:
    """`livedump: ...` on standard error: what a person wants to know and a program does not."""
    print(f"livedump: {printable(text)}", file=sys.stderr)
