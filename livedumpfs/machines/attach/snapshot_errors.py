# SPDX-License-Identifier: GPL-2.0-or-later
"""Sentences for a snapshot that came to nothing."""

from __future__ import annotations

import errno

from livedumpfs.errors import MachineError
from livedumpfs.machines.attach.obstacles import MigrationState


def not_ours() -> MachineError:
    """The way of the migration was changed."""
    return MachineError(
        "another program has turned background-snapshot off in this QEMU meanwhile",
        errno=errno.EBUSY,
        hint="one program at a time may use QEMU's migration",
    )


def stood_still() -> MachineError:
    """This process did."""
    return MachineError(
        "this process stood still for too long; the guest could not wait, so the rest of its "
        "memory was dropped",
        errno=errno.ETIMEDOUT,
        hint="try it again",
    )


def failed(state: MigrationState, *, early: bool) -> MachineError:
    """In QEMU's own words. `early`: it had stopped the guest, and not let it run again."""
    how = "been cancelled" if state.status == "cancelled" else state.status
    words = f": {state.error_desc}" if state.error_desc else ""
    if early and not words:
        words = ": the guest's disks cannot be flushed, or a device cannot be saved"
    return MachineError(
        f"QEMU's background snapshot has {how}{words}",
        errno=errno.EIO,
        hint="see QEMU's own messages" if early else "try it again",
    )
