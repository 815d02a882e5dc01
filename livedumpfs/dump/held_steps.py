# SPDX-License-Identifier: GPL-2.0-or-later
"""HeldSteps: HOLD, ARM and GO of a LiveDump, which are START in three steps."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from typing import Final

from livedumpfs import abi
from livedumpfs.dump.core_dump import Core
from livedumpfs.dump.event import Happened
from livedumpfs.dump.held import Gaps, Holding, HoldTimes, expect_not_held
from livedumpfs.dump.instant import Snapshot
from livedumpfs.dump.run import DumpRun, Outcome
from livedumpfs.dump.stage import DumpState, Stage
from livedumpfs.dump.tracking import Increment, bases_of
from livedumpfs.errors import MachineError, StateError, UsageError
from livedumpfs.machines import BringsInstant, HoldsNobody, Machine

_MOST_S: Final = abi.HOLD_MOST_NS / 1e9


class HeldSteps:
    """For several machines at one instant: all are held, then all armed, then all let go. So no
    message that one of them sends after its instant can be in another's before."""

    machine: Machine
    _step: threading.Lock
    _stage: Stage
    _run: DumpRun | None
    _last: Outcome

    def _current(self, step: str, *allowed: DumpState) -> DumpRun:
        raise NotImplementedError

    def _expect_own(self, step: str) -> None:
        raise NotImplementedError

    def _retire(self, run: DumpRun, by: str = "") -> None:
        raise NotImplementedError

    def _make_snapshot(self, run: DumpRun, core: Core) -> Snapshot:
        raise NotImplementedError

    def _tell(self, what: Happened, run: DumpRun) -> None:
        raise NotImplementedError

    # --------------------------------------------------------------------- instants

    @property
    def dump_id(self) -> bytes:
        """Of the dump that there is, else of the last one: 16 bytes; b"": there was none."""
        run = self._run
        return run.dump_id if run else self._last.dump_id

    @property
    def bases(self) -> Sequence[bytes]:
        """Ids of the dumps since whose START it is known what has changed (setting `track`), the
        newest first: a dump becomes one at its RELEASE if all of it went into a pipe or store."""
        return bases_of(self.machine.arena)

    @property
    def increment(self) -> Increment:
        """What the dump that there is, else the last one, says of changes."""
        run = self._run
        return run.increment if run else self._last.increment

    def wait_while_init(self, timeout: float) -> bool:
        """True once the state is another than INIT; False after `timeout` seconds."""
        return self._stage.wait_while(DumpState.INIT, timeout)

    def _started(self, run: DumpRun, core: Core) -> None:
        """The instant is taken."""
        run.begun = True
        run.registers = self.machine.snapshot_registers()
        run.notes = run.take_notes()
        run.armed = True
        run.snapshot = self._make_snapshot(run, core)
        run.started.set()
        self._stage.enter(DumpState.START)

    # --------------------------------------------------------------------- steps

    def hold(self, seconds: float) -> None:
        """HOLD, after init: returns when the machine stands. It runs again after go(), or after
        `seconds` from when it stood whatever happens, or after release(). Handlers of signals run
        meanwhile: they are of what `quiesce` must stop, if they store.

        MachineError: EOPNOTSUPP, this machine cannot be held; or what start() raises: the machine
        runs then. StateError EBUSY: it is held already."""
        self._expect_own("HOLD")
        if not 0 < seconds <= _MOST_S:
            raise UsageError(
                f"HOLD: a deadline of {seconds:g} s is not above 0 and at most {_MOST_S:g} s",
                errno=errno.ERANGE,
            )
        with self._step:
            run = self._current("HOLD", DumpState.INIT)
            core = run.core
            assert core is not None
            expect_not_held("HOLD", run.holding)
            _expect_holdable(self.machine)

            def start(gaps: Gaps) -> None:
                core.start(self.machine, run.settings.quiesce_deadline, gaps)

            holding = Holding(seconds, start)
            holding.ended = lambda: self._holder_ended(run, holding)
            run.holding = holding
            if run.released:  # which did not see it
                raise StateError("HOLD: the dump was released meanwhile", errno=errno.ECANCELED)
            holding.begin()

    def arm(self) -> None:
        """ARM, while the machine is held: the snapshot instant. The machine still stands.
        MachineError ETIMEDOUT: the deadline has let it go; or what start() raises. It runs
        then."""
        self._expect_own("ARM")
        with self._step:
            run = self._current("ARM", DumpState.INIT)
            assert run.core is not None
            try:
                _held("ARM", run).arm()
                self._started(run, run.core)
            except BaseException:  # also of a signal's handler, while it is being armed
                if run.holding:
                    run.holding.release()
                    run.holding.wait_until_it_runs()
                self._retire_failed(run, whatever=True)
                raise

    def go(self) -> None:
        """GO, after arm(): returns when the machine runs. MachineError ETIMEDOUT: the deadline had
        let it go before; the dump is good as one of this machine alone."""
        self._expect_own("GO")
        with self._step:
            run = self._current("GO")
            try:
                _held("GO", run).go()
            except BaseException:
                self._retire_failed(run)
                raise
            self._tell(Happened.START, run)

    @property
    def held(self) -> HoldTimes | None:
        """When the machine stood in the last HOLD of the dump that there is; None: there was
        none."""
        run = self._run
        return run.holding.times if run and run.holding else None

    @property
    def is_held(self) -> bool:
        """The machine stands now, for HOLD."""
        run = self._run
        return bool(run and run.holding and run.holding.stands)

    @property
    def was_let_go(self) -> bool:
        """By go(), in the last HOLD of the dump that there is: it stood until then."""
        run = self._run
        return bool(run and run.holding and not run.holding.is_on and run.holding.by_go)

    # ---------------------------------------------------------------- the holder

    def _holder_ended(self, run: DumpRun, holding: Holding) -> None:
        """On the holder: perhaps no client is left to see that the machine could not be let go as
        it should, which ends the dump; or that it was armed and ARM does not know of it."""
        with self._step:
            if run.holding is holding:
                self._retire_failed(run, whatever=self._stage.state is DumpState.INIT)
            if run.armed and not run.released:
                self._tell(Happened.START, run)

    def _retire_failed(self, run: DumpRun, *, whatever: bool = False) -> None:
        """A dump that a step has released cannot be used any more. `whatever`: nor can one that is
        armed, and of which no more is known."""
        core = run.core
        holding = run.holding
        if run is not self._run or run.released or core is None or holding is None:
            return
        if (whatever or holding.failed) and not core.startable:
            try:
                run.free()
            finally:
                self._retire(run, "by a START that failed")


def _expect_holdable(machine: Machine) -> None:
    """MachineError EOPNOTSUPP."""
    why = ""
    if isinstance(machine, BringsInstant):
        why = "QEMU takes its instant itself, and lets the guest go by itself"
    elif isinstance(machine, HoldsNobody) and machine.holds_nobody:
        why = "the program itself holds its threads, and only while it calls START"
    if why:
        raise MachineError(
            f"HOLD is not possible with machine {machine.name}: {why}",
            errno=errno.EOPNOTSUPP,
            hint="START takes its instant in one step",
        )


def _held(step: str, run: DumpRun) -> Holding:
    if run.holding is None or not run.holding.begun:
        raise StateError(f"{step}: the machine is not held: HOLD comes first", errno=errno.EINVAL)
    return run.holding
