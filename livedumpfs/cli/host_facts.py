# SPDX-License-Identifier: GPL-2.0-or-later
"""What `report` asks a running host for, in the files of its mount."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from livedumpfs.cli.status_command import status_rows
from livedumpfs.errors import InvalidDump

if TYPE_CHECKING:
    from livedumpfs.client import Client
    from livedumpfs.html_report import HostSaid, TaskList

_VMCORE: Final = "snapshot/vmcore"


def host_said(client: Client) -> HostSaid:
    """All but the memory. Errors as of Client."""
    from livedumpfs.html_report import HostSaid

    stats = client.stats()
    ranges = client.read("machine/map").decode().splitlines()
    return HostSaid(
        device=client.device,
        stats=stats,
        pages=client.pages(),
        registers=json.loads(client.read("machine/registers.json")),
        ranges=[(first, at) for first, _, at in (line.partition(" arena ") for line in ranges)],
        rows=status_rows(client.status(), client.device, stats),
    )


def host_tasks(client: Client, vmlinux: str | None) -> TaskList:
    """The tasks at the instant of the dump that there is."""
    from livedumpfs.html_report import TaskList, living_core, task_list

    path = os.path.join(client.mountpoint, _VMCORE)
    if not os.path.exists(path):
        return TaskList(problem="There is no snapshot to look into: there is one after START.")
    try:
        with living_core(path) as memory:
            return task_list(memory, vmlinux)
    except (InvalidDump, OSError) as error:  # it was released meanwhile, say
        return TaskList(problem=f"The snapshot cannot be read: {error}.")
