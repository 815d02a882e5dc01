# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether stores of this process can be caught by a signal: what START refuses, before INIT."""

from __future__ import annotations

import errno
import signal
from typing import Final

from livedumpfs.core.capi import lib
from livedumpfs.errors import MachineError

SIGNALS: Final = {"sigsegv": signal.SIGSEGV, "sigbus": signal.SIGBUS}
"""The backends by which the thread that stores gets a signal, and which."""
_SINCE: Final = {"sigsegv": "the arena was made", "sigbus": "the first INIT with that backend"}
"""Since when our handler is there."""


def signal_cause(error: int, backend: str) -> tuple[str, str] | None:
    """Cause and hint, for what the core answers when stores cannot be caught; None: it is another
    error."""
    name = SIGNALS[backend].name if backend in SIGNALS else ""
    if name and error == errno.ENOTCONN:
        return (
            f"another {name} handler was installed after {_SINCE[backend]} (faulthandler.enable?)",
            "install it before the first arena is made, or take backend uffd",
        )
    if name and error == errno.EDEADLK:
        return (
            f"a thread of this process blocks {name}",
            "unblock it in every thread (pthread_sigmask), or take backend uffd",
        )
    return None


def check_signals(backend: str) -> None:
    """MachineError: START with that backend, one of SIGNALS, would be refused now."""
    error = -lib.ldfs_fault_check(SIGNALS[backend])
    if error:
        unknown = (f"{SIGNALS[backend].name} cannot be looked at", "")
        cause, hint = signal_cause(error, backend) or unknown
        raise MachineError(f"cannot catch stores: {cause}", errno=error, hint=hint)


_kernel_says: list[int] = []
"""0 or the errno, once it has said what holds for good: whether backend sigbus can be had."""


def _kernel_has_sigbus() -> bool:
    if not _kernel_says:
        error = -lib.ldfs_sigbus_possible()
        if error not in (0, errno.EACCES, errno.EPERM, errno.ENOSYS):
            return False  # for want of a descriptor or memory
        _kernel_says.append(error)
    return _kernel_says[0] == 0


def can_take_sigbus() -> bool:
    """Whether a dump with backend sigbus can be had now: the kernel lets us, and START would not
    refuse it. Waits for seconds while a thread blocks the signal."""
    return _kernel_has_sigbus() and not lib.ldfs_fault_check(signal.SIGBUS)
