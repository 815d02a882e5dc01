# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of machine/ in a mount: what a machine says of itself, and its console."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from livedumpfs.control import report
from livedumpfs.control.caller import Caller
from livedumpfs.machines import Machine, TakesTyping

CONSOLE: Final = "machine/console"
STREAM: Final = "machine/console.stream"


def machine_readers(machine: Machine) -> dict[str, Callable[[Caller], str | bytes]]:
    """What they say. STREAM is there where one can type."""
    readers: dict[str, Callable[[Caller], str | bytes]] = {
        CONSOLE: lambda _: machine.console(),
        "machine/registers": lambda _: report.registers_text(machine),
        "machine/registers.json": lambda _: report.registers_json(machine),
        "machine/map": lambda _: report.map_text(machine.memory_map),
        "machine/state": lambda _: report.state_of_machine(machine),
    }
    if isinstance(machine, TakesTyping):
        readers[STREAM] = lambda _: _stream(machine)
    return readers


def _stream(machine: TakesTyping) -> bytes:
    """A line with how many bytes were printed ever, and the newest of them: a reader that comes
    again knows which are new."""
    end, newest = machine.console_stream()
    return b"%d\n%b" % (end, newest)
