# SPDX-License-Identifier: GPL-2.0-or-later
"""The deadlines that a program has."""

from __future__ import annotations

from livedumpfs.dump import DumpSettings
from livedumpfs.machines import emulated
from livedumpfs.mount import host, mountpoint
from livedumpfs.rights import helper

one = DumpSettings()
print(
    one.quiesce_deadline,
    one.stall_deadline,
    one.init_deadline,
    host.MOUNT_TIMEOUT,
    host.END_TIMEOUT,
    emulated.QUIESCE_SECONDS,
    emulated.STOP_SECONDS,
    helper.TIMEOUT,
    mountpoint.UNMOUNT_TIMEOUT,
)
