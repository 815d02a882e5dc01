# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a command: its exit code, and one sentence when it failed.

All commands use the same codes, but `compare` uses those of cmp, and `qemu` those of QEMU. `host`,
`qemu` and `mount` run until a signal ends them; for them that is no failure.
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

from livedumpfs.cli.next_command import next_command
from livedumpfs.cli.output import cannot_say, is_journal, is_quiet, say, tell
from livedumpfs.errors import (
    InconsistentDump,
    InvalidDump,
    LivedumpError,
    StateError,
    UsageError,
    in_control,
    printable,
)
from livedumpfs.settings import OPTIONS


class Exit(enum.IntEnum):
    """The exit codes; docs/cli.md promises them."""

    DONE = 0
    """Success; the dump, if any, is consistent."""
    FAILED = 1
    """There is no dump, or the command could not find out."""
    USAGE = 2
    NOT_VALID = 3
    """The dump is torn, incomplete, damaged, or not a dump."""
    INTERRUPTED = 128 + signal.SIGINT
    """Interrupted by SIGINT; for another signal, 128 and its number."""
    DIFFERENT = FAILED  # of `compare`, as in cmp
    TROUBLE = USAGE


class Broken(LivedumpError):
    """A dump was taken, but is incomplete because another step failed."""


class Interrupted(KeyboardInterrupt):
    """A signal that asks the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


FAILURES: Final = (LivedumpError, OSError, ValueError, ImportError, MemoryError)
"""Exceptions that end a command with a sentence; any other one is a bug."""
ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command in order, as SIGINT does."""


def end_in_order() -> None:
    """From now on the first signal of ENDING raises Interrupted; ignored signals stay ignored.
    Commands that serve a mount install their own handlers."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in ENDING:
            signal.signal(one, signal.SIG_DFL)
        raise Interrupted(number)

    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)


def end_at_once() -> None:
    """Undo end_in_order(), for a library that installs handlers only where there are none."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def dump_taken(name: str | None) -> Iterator[None]:
    """Around the steps after START, when there is a dump on `name` or in memory. An error becomes
    Broken, but for a timeout: giving up the wait does not end the dump."""
    try:
        yield
    except (LivedumpError, OSError) as error:
        if error.errno == errno.ETIMEDOUT:
            raise
        where = f"dump on {name}" if name else "snapshot in memory"
        raise Broken(f"the {where} is incomplete: {sentence(error)}") from error


def sentence(error: BaseException) -> str:
    """An exception in one line, as "object: cause". Exceptions of livedumpfs have their own
    sentence."""
    if isinstance(error, StateError) and not error.hint:
        message = error.message.removesuffix(" (release it first)")
        hint = "" if message.endswith(")") else next_command(message)
        error = StateError(message, hint=hint) if hint else error
    if isinstance(error, LivedumpError):
        return error.worded(option)
    if isinstance(error, ImportError):
        return _not_importable(error)
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
"""Files of control/ that are not options of the commands in whose hints they appear."""


def option(name: str) -> str:
    """A setting as an option of the command line; as a file of control/ if no client can set it."""
    row = _FLAGS.get(name)
    if row:
        return row.flag if row.ioctl else in_control(name)
    return in_control(name) if name in _FILES_ONLY else f"--{name.replace('_', '-')}"


def exit_code(error: BaseException) -> int:
    """Exit code of a command that ended with an exception."""
    if isinstance(error, InvalidDump | InconsistentDump | Broken):
        return Exit.NOT_VALID
    if isinstance(error, UsageError):
        return Exit.USAGE
    if isinstance(error, KeyboardInterrupt):
        return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)
    return Exit.FAILED


def interrupted(error: KeyboardInterrupt) -> str:
    """The words for it: "interrupted", or "ended by" and the other signal's name."""
    if isinstance(error, Interrupted):
        return f"ended by {signal.Signals(error.number).name}"
    return "interrupted"


def answer(text: str, code: int = Exit.DONE) -> int:
    """Print output for programs. Returns `code`, or FAILED when the output cannot be written and
    `code` is DONE."""
    problem = say(text, quiet=True)
    if problem is None:
        return code
    if problem.errno != errno.EPIPE:
        complain(cannot_say(problem))
    return code or Exit.FAILED


def complain(text: str) -> None:
    """Print `livedump: error: ...` on standard error."""
    tell(f"{_priority(_ERROR)}livedump: error: {printable(text)}")


def note(text: str) -> None:
    """Print `livedump: ...` on standard error: for people, not for programs."""
    if not is_quiet():
        tell(f"{_priority(_NOTICE)}livedump: {printable(text)}")


_ERROR: Final = 3
_NOTICE: Final = 5
"""Priorities of syslog(3)."""


def _priority(number: int) -> str:
    """What the journal takes off a service's line, and keeps beside it (sd-daemon(3)); "": the line
    goes elsewhere."""
    return f"<{number}>" if is_journal() else ""


# ---------------------------------------------------------------- what cannot be imported

_PACKAGES: Final = {
    "_cffi_backend": "cffi",
    "elftools": "pyelftools",
    "fuse": "fusepy",
    "jinja2": "Jinja2",
    "libvirt": "libvirt-python",
    "qemu": "qemu.qmp",
}
"""Module -> its package, where the names differ."""


def _not_importable(error: ImportError) -> str:
    """The sentence for a module that is missing, or not readable for this user."""
    module = error.name or ""
    if module == "livedumpfs._native":
        return "the C core of livedumpfs is not built, or not for this Python (run `make`)"
    if not isinstance(error, ModuleNotFoundError) or not module:
        return f"a Python package cannot be loaded: {' '.join(str(error).split())}"
    top = module.partition(".")[0]
    package = _PACKAGES.get(top, top)
    return f"{sys.executable} does not have the Python package {package} ({_remedy(package)})"


_EXTRAS: Final = {
    "boto3": "remote",
    "cryptography": "encryption",
    "dask": "fleet",
    "distributed": "fleet",
    "libvirt-python": "libvirt",
    "obstore": "remote",
    "pyarrow": "fleet",
    "pyrage": "encryption",
}
"""Package -> the extra of ours that has it, where it is not always needed."""


def _remedy(package: str) -> str:
    for folder in sys.path:
        try:
            os.stat(folder)
        except PermissionError:
            return f"this user may not enter {folder}"
        except OSError:
            continue
    if package in _EXTRAS:
        extra = _EXTRAS[package]
        built = "; it is built with gcc, libvirt-dev, pkg-config" if extra == "libvirt" else ""
        return f"pip install 'livedumpfs[{extra}]'{built}"
    return "`make setup` installs it in a source tree, else pip"
