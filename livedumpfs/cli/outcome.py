# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command ends: its exit code, and the one sentence behind it when it failed.

The codes are the same for all commands. `compare` alone has those of cmp, and `qemu` those of QEMU;
`host`, `qemu` and `mount` run until a signal ends them, which is no interruption.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Final

from livedumpfs.cli.output import cannot_say, say, tell
from livedumpfs.errors import (
    InconsistentDump,
    InvalidDump,
    LivedumpError,
    UsageError,
    in_control,
    printable,
)
from livedumpfs.settings import OPTIONS


class Exit(enum.IntEnum):
    """The exit codes; docs/cli.md promises them."""

    DONE = 0
    """And the dump is consistent, where there is one."""
    FAILED = 1
    """There is no dump, or none that the command can say anything about."""
    USAGE = 2
    NOT_VALID = 3
    """Torn, incomplete, damaged, or not a dump."""
    INTERRUPTED = 128 + signal.SIGINT
    """The number of another signal instead, when that ended it."""
    DIFFERENT = FAILED  # of `compare`, as cmp has it
    TROUBLE = USAGE


class Broken(LivedumpError):
    """A dump that was taken, and that is incomplete because something else went wrong."""


class Interrupted(KeyboardInterrupt):
    """A signal that asks to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


FAILURES: Final = (LivedumpError, OSError, ValueError, ImportError, MemoryError)
"""What ends a command with a sentence; all else is a mistake of ours."""
ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command as SIGINT does: in order."""


def end_in_order() -> None:
    """From now on ENDING raise Interrupted, the first of them; those that are ignored stay so.
    Whoever serves a mount has handlers of its own."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in ENDING:
            signal.signal(one, signal.SIG_DFL)
        raise Interrupted(number)

    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)


def end_at_once() -> None:
    """Take end_in_order() back, for a library that installs its handlers only where there are
    none."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def dump_taken(name: str | None) -> Iterator[None]:
    """From START on there is a dump, on `name` or in memory: Broken when something else than its
    verdict ends it. Who gives up waiting does not end it."""
    try:
        yield
    except (LivedumpError, OSError) as error:
        if error.errno == errno.ETIMEDOUT:
            raise
        where = f"dump on {name}" if name else "snapshot in memory"
        raise Broken(f"the {where} is incomplete: {sentence(error)}") from error


def sentence(error: BaseException) -> str:
    """An exception as "object: cause", in one line. Our own say it themselves."""
    if isinstance(error, ImportError):
        return _not_importable(error)
    if isinstance(error, LivedumpError):
        return error.worded(option)
    if type(error).__str__ is OSError.__str__ and isinstance(error, OSError) and error.errno:
        cause = os.strerror(error.errno)
        return f"{os.fsdecode(error.filename)}: {cause}" if error.filename else cause
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return " ".join(str(error).split()) or type(error).__name__


_FLAGS: Final = {name: one for one in OPTIONS for name in (one.name, one.file)}
_FILES_ONLY: Final = (
    "state", "output", "type", "consistent", "use_interrupt", "failed", "error",
)  # fmt: skip
"""Files of control/ that are no option of the commands that meet them."""


def option(name: str) -> str:
    """A setting as the command line writes it: what a client cannot say stays a file."""
    row = _FLAGS.get(name)
    if row:
        return row.flag if row.ioctl else in_control(name)
    return in_control(name) if name in _FILES_ONLY else f"--{name.replace('_', '-')}"


def exit_code(error: BaseException) -> int:
    """For a command that an exception ended."""
    if isinstance(error, InvalidDump | InconsistentDump | Broken):
        return Exit.NOT_VALID
    if isinstance(error, UsageError):
        return Exit.USAGE
    if isinstance(error, KeyboardInterrupt):
        return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)
    return Exit.FAILED


def interrupted(error: KeyboardInterrupt) -> str:
    """ "interrupted", or by what else."""
    if isinstance(error, Interrupted):
        return f"ended by {signal.Signals(error.number).name}"
    return "interrupted"


def answer(text: str, code: int = Exit.DONE) -> int:
    """Print what a program reads: `code`, or FAILED when it cannot be written and all else went
    well."""
    problem = say(text, quiet=True)
    if problem is None:
        return code
    if problem.errno != errno.EPIPE:
        complain(cannot_say(problem))
    return code or Exit.FAILED


def complain(text: str) -> None:
    """`livedump: error: ...` on standard error."""
    tell(f"livedump: error: {printable(text)}")


def note(text: str) -> None:
    """`livedump: ...` on standard error: what a person wants to know and a program does not."""
    tell(f"livedump: {printable(text)}")


# ---------------------------------------------------------------- what cannot be imported

_PACKAGES: Final = {
    "_cffi_backend": "cffi",
    "fuse": "fusepy",
    "qemu": "qemu.qmp",
}
"""Where a module does not bear the name of its package."""


def _not_importable(error: ImportError) -> str:
    """Something that we need is not there, or not for this user."""
    module = error.name or ""
    if module == "livedumpfs._native":
        return "the C core of livedumpfs is not built, or not for this Python (run `make`)"
    if not isinstance(error, ModuleNotFoundError) or not module:
        return f"a Python package cannot be loaded: {' '.join(str(error).split())}"
    top = module.partition(".")[0]
    package = _PACKAGES.get(top, top)
    return f"{sys.executable} does not have the Python package {package} ({_remedy()})"


def _remedy() -> str:
    for folder in sys.path:
        try:
            os.stat(folder)
        except PermissionError:
            return f"this user may not enter {folder}"
        except OSError:
            continue
    return "`make setup` installs it in a source tree, else pip"
