# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether stores of this process can be caught by SIGSEGV: what START refuses, before INIT."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from livedumpfs.core.capi import lib
from livedumpfs.errors import MachineError

SIGNAL_CAUSES: Final[Mapping[int, tuple[str, str]]] = {
    errno.ENOTCONN: (
        "another SIGSEGV handler was installed after the arena was made (faulthandler.enable?)",
        "install it before the first arena is made, or take backend uffd",
    ),
    errno.EDEADLK: (
        "a thread of this process blocks SIGSEGV",
        "unblock it in every thread (pthread_sigmask), or take backend uffd",
    ),
}
"""Cause and hint, for what the core answers when stores cannot be caught."""


def check_signals() -> None:
    """MachineError: START with backend sigsegv would be refused now."""
    error = -lib.ldfs_fault_check()
    if error:
        cause, hint = SIGNAL_CAUSES.get(error, ("SIGSEGV cannot be looked at", ""))
        raise MachineError(f"cannot catch stores: {cause}", errno=error, hint=hint)
