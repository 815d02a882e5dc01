# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpFigures: what a LiveDump says of the dump that there is, or of the last one."""

from __future__ import annotations

from livedumpfs.dump.counters import Counters, Progress
from livedumpfs.dump.picture import picture
from livedumpfs.dump.run import DumpRun, Outcome
from livedumpfs.dump.stage import DumpState, Stage
from livedumpfs.formats import VerdictWord
from livedumpfs.machines import Machine


class DumpFigures:
    """Any thread may look, at any time; nothing waits for a step that is under way."""

    machine: Machine
    _stage: Stage
    _run: DumpRun | None
    _last: Outcome

    @property
    def state(self) -> DumpState:
        """Now."""
        return self._stage.state

    def counters(self) -> Counters:
        """Of the dump that there is, else of the last one."""
        run = self._run
        return run.core.counters() if run and run.core else self._last.counters

    @property
    def verdict(self) -> VerdictWord | None:
        """What the dump says of itself, for good: None until it is sealed, and without a target
        until it is released. See so_far."""
        run = self._run
        return run.verdict if run else self._last.verdict

    @property
    def so_far(self) -> VerdictWord | None:
        """What the verdict will be if nothing else happens to the dump: None before START. Only
        "consistent" can still become worse."""
        run = self._run
        return run.so_far if run else self._last.verdict

    @property
    def failure(self) -> str | None:
        """The first error in one sentence; None: none."""
        run = self._run
        return run.failure if run else self._last.failure

    @property
    def reason(self) -> str | None:
        """Why the dump is not consistent, or will not be, in one sentence: its failure, or how
        pages were lost without one. None: nothing is known against it."""
        run = self._run
        return run.reason if run else self._last.reason

    @property
    def expired(self) -> str | None:
        """Why the last dump was released by the host itself, in one sentence; None: there is a
        dump, there was none, or RELEASE was called."""
        return None if self._run else self._last.expired

    @property
    def released(self) -> str | None:
        """By what and in which state the last dump was released, in one sentence; None: there
        is a dump, or there was none."""
        return None if self._run else self._last.released

    @property
    def target_path(self) -> str | None:
        """Of the dump that there is, else of the last one; None: memory only."""
        run = self._run
        return run.target if run else self._last.target

    def progress(self) -> Progress:
        """How far the dump has come."""
        return Progress.of(self.counters(), self.machine.arena.size, self.state.value)

    def lost_pages(self) -> list[list[int]]:
        """Pages of the arena that the dump that there is has lost: [first, end) of each run."""
        run = self._run
        if run is None or run.core is None or not run.core.counters().lost:
            return []
        return run.core.lost_ranges(self.machine.arena.size)

    def pages(self) -> bytes:
        """How each part of the arena stands in the dump that there is: a letter of page_map for
        each of its cells, in their order. b"": there is none."""
        run = self._run
        return b"" if run is None or run.core is None else picture(run.core.marks(), run.armed)
