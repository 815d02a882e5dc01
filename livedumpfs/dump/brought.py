# SPDX-License-Identifier: GPL-2.0-or-later
"""BroughtDump: one dump of a machine that is elsewhere, whose memory START brings here first."""

from __future__ import annotations

import errno
from dataclasses import replace

from livedumpfs.core.arena import Arena
from livedumpfs.dump.core_dump import CoreDump, CoreFiles
from livedumpfs.dump.counters import Counters
from livedumpfs.dump.held import Gaps
from livedumpfs.errors import StateError
from livedumpfs.formats import Plan
from livedumpfs.machines import BringsInstant, Machine
from livedumpfs.settings import DumpSettings


class BroughtDump(CoreDump):
    """As CoreDump. The instant and the stop that are reported are the machine's own: what the core
    does here afterwards stops nothing."""

    def __init__(
        self,
        origin: BringsInstant,
        arena: Arena,
        settings: DumpSettings,
        plan: Plan | None,
        files: CoreFiles | None = None,
        *,
        reference: int = -1,
    ) -> None:
        """INIT. See CoreDump."""
        self._origin = origin
        self._wanted = True
        super().__init__(arena, settings, plan, files, reference=reference)

    def start(self, machine: Machine, deadline_s: float, gaps: Gaps | None = None) -> None:
        """START. The deadline is not that of the way here, which may be long. MachineError."""
        self._expect_startable()
        self._origin.bring()
        self._expect_startable()
        super().start(machine, deadline_s, gaps)

    def _expect_startable(self) -> None:
        if not (self._wanted and self.startable):
            raise StateError("the dump was released meanwhile", errno=errno.ECANCELED)

    def release(self) -> bool:
        """RELEASE. Also ends a START that still waits for memory."""
        if self._wanted:
            self._wanted = False
            self._origin.give_up()
        return super().release()

    def counters(self) -> Counters:
        """Taken now, or just before it was freed."""
        found = super().counters()
        if not found.instant_wall_ns:
            return found
        times = self._origin.stop_times
        return replace(
            found,
            quiesce_ns=0,
            arm_ns=0,
            resume_ns=0,
            pause_ns=times.stop_ns,
            instant_mono_ns=times.mono_ns,
            instant_wall_ns=times.wall_ns,
        )
