# SPDX-License-Identifier: GPL-2.0-or-later
"""The error for a QEMU that does not start, or ends before its guest runs."""

from __future__ import annotations

import errno
import resource
import signal
from typing import Final

from livedumpfs.errors import MachineError
from livedumpfs.units import format_size

_SHELL_SIGNAL: Final = 128
_MOST_LINES: Final = 4
_WHY: Final = {
    errno.ENOENT: "is it installed, and in PATH?",
    errno.EACCES: "it must be executable for this user",
    errno.ENOEXEC: "it is a program for another machine, or a script without #!",
}


class EndedAtOnce(MachineError):
    """QEMU ended before its guest ran."""

    status: int
    """Exit status as in a shell: for a signal, 128 and its number."""


def cannot_start(program: str, error: OSError) -> MachineError:
    """The error for a failed exec."""
    code = error.errno or errno.EIO
    return MachineError(
        f"cannot start {program}: {error.strerror}", errno=code, hint=_WHY.get(code, "")
    )


def ended_at_once(code: int, said: str | None = None, *, ram: int = 0) -> EndedAtOnce:
    """`code`: as in Popen.returncode. `said`: QEMU's standard error; None: QEMU wrote to that of
    this process. `ram`: bytes of the memory that we made for it."""
    status = code if code >= 0 else _SHELL_SIGNAL - code
    words = _last_words(said) if said else ""
    hint = limit_hint(status, ram)
    if not hint and said is None and 0 < status <= _SHELL_SIGNAL:
        hint = "it says why above"
    found = EndedAtOnce(
        f"QEMU ended at once {_how(status)}" + (f": {words}" if words else ""),
        errno=errno.ECONNRESET,
        hint=hint,
    )
    found.status = status
    return found


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "; ".join(lines[-_MOST_LINES:])


def _how(status: int) -> str:
    try:
        return f"by {signal.Signals(status - _SHELL_SIGNAL).name}"
    except ValueError:
        return f"with exit status {status}"


def limit_hint(status: int, ram: int) -> str:
    """Which limit of the shell may have ended QEMU, with `ram` bytes of memory; empty: none. QEMU
    has inherited the limits of this process."""
    files, memory = (
        resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS)
    )
    if status == _SHELL_SIGNAL + signal.SIGXFSZ:
        size = f" of {format_size(ram)}" if ram else ""
        allowed = f" of {format_size(files)}" if files >= 0 else ""
        return f"its memory is a file{size}, and `ulimit -f` allows files{allowed} at the most"
    if memory >= 0 and status:
        return f"`ulimit -v` allows it {format_size(memory)} of addresses, its memory included"
    return ""
