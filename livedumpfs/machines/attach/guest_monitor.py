# SPDX-License-Identifier: GPL-2.0-or-later
"""GuestMonitor: the monitor of a QEMU that runs already, over whichever way it is reached."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from livedumpfs.closing import Closing
from livedumpfs.machines.qemu.qmp_commands import QmpCommands

OnEvent = Callable[[Mapping[str, Any]], object]
"""Is called with each event of QEMU, in the form of QMP, and must not wait."""


@dataclass(frozen=True)
class LifelineWay:
    """How a lifeline, which is another process, reaches the same monitor."""

    words: Sequence[str]
    """See lifeline_program.py."""
    fds: Sequence[int] = ()
    """Open files that it needs for that."""


class GuestMonitor(QmpCommands, Closing):
    """Any thread may call."""

    place: str
    """Where it is, for a person."""
    taints: str = ""
    """What its use leaves behind, for a person, as the end of a sentence."""
    whose: str
    """Names the QEMU, the same for each process that reaches it in this way."""
    pid: int
    """Of QEMU; 0: not known."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """QEMU has not ended, nor the way to it."""

    @abstractmethod
    def send_file(self, name: str, fd: int, *, timeout: float | None = None) -> None:
        """Give QEMU a copy of `fd` under that name, until a command takes it. MachineError as in
        `execute`."""

    @abstractmethod
    def for_lifeline(self) -> LifelineWay:
        """For a process that outlives this one."""
