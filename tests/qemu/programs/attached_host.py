# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that has received the first pages of a snapshot, and goes on with the next line of its
input: attached_host.py SOCKET SILENCE, or libvirt:DOMAIN for SOCKET."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from livedumpfs.dump import LiveDump
from livedumpfs.errors import LivedumpError
from livedumpfs.machines.attach import AttachedMachine, lifeline, received_memory, snapshot_job
from livedumpfs.machines.attach.libvirt_monitor import LibvirtMonitor

lifeline._SILENCE_S = float(sys.argv[2])  # type: ignore[misc]
plain = received_memory.ReceivedMemory.pages
lifelines: list[int] = []


class Noted(lifeline.Lifeline):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        lifelines.append(self.pid)


def pages(self: Any, *given: Any) -> None:
    if lifelines:
        print(f"receiving {lifelines.pop()}", flush=True)
        sys.stdin.readline()
    plain(self, *given)


received_memory.ReceivedMemory.pages = pages  # type: ignore[method-assign]
snapshot_job.Lifeline = Noted  # type: ignore[misc]
way, _, name = sys.argv[1].partition(":")
guest = partial(LibvirtMonitor, name) if way == "libvirt" else sys.argv[1]
with AttachedMachine(guest) as machine:
    live = LiveDump(machine)
    live.init(None)
    try:
        live.start()
        print("done", flush=True)
    except LivedumpError as error:
        print(error, flush=True)
    live.release()
