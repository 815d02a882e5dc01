# SPDX-License-Identifier: GPL-2.0-or-later
"""Turn: one process of livedumpfs at a time has QEMU's migration settings."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
from typing import Final

from livedumpfs.errors import MachineError, os_cause
from livedumpfs.proc import proc_text

_NAME: Final = "\0livedumpfs-attach-"


def take_turn(pid: int, whose: str) -> socket.socket:
    """A socket that holds the turn of one QEMU while it, or a copy of it, is open. `pid`: of QEMU;
    0: not known, then `whose` names it. MachineError: EBUSY, another one has it."""
    called = f"{pid}-{_started(pid)}" if pid else whose
    name = hashlib.sha256(os.fsencode(called)).hexdigest()[:32]
    turn = None
    try:
        turn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        turn.bind(_NAME + name)
    except OSError as error:
        if turn:
            turn.close()
        if error.errno != errno.EADDRINUSE:
            code = error.errno or errno.EIO
            raise MachineError(
                f"cannot hold other snapshots off: {os_cause(code)}", errno=code
            ) from error
        raise MachineError(
            "another `livedump attach` takes a snapshot of this QEMU, or has not ended it yet",
            errno=errno.EBUSY,
            hint="wait for it",
        ) from error
    else:
        return turn


def _started(pid: int) -> str:
    """A number may be another process's later."""
    with contextlib.suppress(OSError, IndexError):
        return proc_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]
    return ""
