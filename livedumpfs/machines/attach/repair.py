# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that a background snapshot has left hanging, and how it is freed."""

from __future__ import annotations

import errno

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach.migration_end import ENDED_BADLY
from livedumpfs.machines.attach.obstacles import migration_of
from livedumpfs.machines.attach.protection import is_left_protected, unprotect
from livedumpfs.machines.qemu.qmp_commands import QmpCommands


def repair(monitor: QmpCommands, pid: int) -> bool:
    """Free it. `pid`: of QEMU; 0: not known. To be called in one's turn (turn.py). False: there was
    nothing to do, or it cannot be done by this process."""
    try:
        if not is_hanging(monitor, pid):
            return False
        # To look at a large process takes seconds: another program's snapshot may have begun.
        unprotect(pid, still=lambda: _has_ended_badly(monitor))
    except OSError:
        return False
    return True


def is_hanging(monitor: QmpCommands, pid: int) -> bool:
    """A snapshot that failed has left write protection behind. OSError: that cannot be seen."""
    return bool(pid) and _has_ended_badly(monitor) and is_left_protected(pid)


def free_silent(monitor: QmpCommands, pid: int, seconds: float) -> None:
    """QEMU's main loop may itself wait for memory that the snapshot has left protected: then the
    monitor is silent. To be called when the stream of one's own snapshot has ended."""
    try:
        monitor.status(timeout=seconds)
    except MachineError as error:
        if error.errno == errno.ETIMEDOUT and pid:
            try:
                if is_left_protected(pid):
                    unprotect(pid)
            except OSError:
                return


def _has_ended_badly(monitor: QmpCommands) -> bool:
    return migration_of(monitor).status in ENDED_BADLY
