# SPDX-License-Identifier: GPL-2.0-or-later
"""LiveDump: INIT, START, SWEEP, FINISH, RELEASE of dumps of one machine, one after the other."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable

from livedumpfs.closing import Closing
from livedumpfs.core.arena import Arena
from livedumpfs.dump.age import AgeWatch
from livedumpfs.dump.core_dump import Core
from livedumpfs.dump.counters import Counters
from livedumpfs.dump.dump_figures import DumpFigures
from livedumpfs.dump.dump_files import TargetLike
from livedumpfs.dump.event import DumpEvent, Happened, Observer, tell
from livedumpfs.dump.fitting import fitted_to_machine
from livedumpfs.dump.hanging import Hanging
from livedumpfs.dump.held import expect_not_held
from livedumpfs.dump.held_steps import HeldSteps
from livedumpfs.dump.instant import Snapshot
from livedumpfs.dump.one_call import save_in_one_call
from livedumpfs.dump.preparation import abandon, prepare
from livedumpfs.dump.run import DumpRun, Outcome
from livedumpfs.dump.spill import fitted_to_memory
from livedumpfs.dump.stage import DumpState, Stage
from livedumpfs.errors import LivedumpError, StateError
from livedumpfs.formats import VerdictWord
from livedumpfs.machines import ChecksFirst, LooksAhead, Machine, Writers, machine_for
from livedumpfs.settings import DumpSettings
from livedumpfs.targets import Errands


class LiveDump(HeldSteps, DumpFigures, Closing):
    """Dumps of one machine, or of an arena that the program's own threads write.

    With an arena: `quiesce` must return only when nothing writes it any more - no thread of the
    program, no system call or direct I/O into it under way, no other process - and `resume` lets
    the writers go. Both are called with the GIL on a thread that start() makes and waits for, until
    `quiesce_deadline` is over (ThreadMachine says what then); between the two, tens of microseconds
    of work are done at any size of the arena. `writers` in their place: a WriterLock, a
    StepBarrier, any object with both methods, or a lock that each writer takes. Left out: the
    caller holds the writers.

    Any thread may call anything; steps in the wrong order raise StateError (OSError EINVAL), a
    second init EBUSY. release() is allowed in every state.

    A dump is the process's that made it: in a forked child every step is refused (ECHILD), and
    release() and close() do nothing.
    """

    def __init__(
        self,
        machine: Machine | Arena,
        *,
        quiesce: Callable[[], object] | None = None,
        resume: Callable[[], object] | None = None,
        writers: Writers | None = None,
    ) -> None:
        self.machine: Machine = machine_for(machine, quiesce, resume, writers)
        self.settings = DumpSettings()
        self._pid = os.getpid()
        self._stage = Stage()
        self._step = threading.Lock()
        self._run: DumpRun | None = None
        self._hanging = Hanging()
        self.errands = Errands()
        """INITs whose target hangs; targets for this dump are opened there, too."""
        self._generation = 0
        self._last = Outcome()
        self.observers: list[Observer] = []
        """Told of each INIT, START, FINISH and RELEASE that was done. See Observer."""

    # ------------------------------------------------------------------- looking

    def describe(self) -> dict[str, object]:
        """What info.json and the dump's notes say. StateError EINVAL: there is no dump."""
        return self._current("describe").describe()

    def read(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length) of the arena at the snapshot instant, from START to
        RELEASE. OSError ENODATA before and after, EIO where a granule is lost."""
        return self.snapshot.read(offset, length)

    @property
    def snapshot(self) -> Snapshot:
        """The memory at the instant of START, until RELEASE. StateError (OSError ENODATA): there
        is none; ECHILD: in a child, whose copy of the states is not that of the memory."""
        self._expect_own("reading the snapshot")
        run = self._run
        found = run.snapshot if run and not run.released else None
        if found is None:
            raise StateError("there is no snapshot", errno=errno.ENODATA)
        return found

    def tell(self, event: DumpEvent) -> None:
        """Tell the observers, also of a step that could not be taken."""
        tell(self.observers, event)

    def _tell(self, what: Happened, run: DumpRun) -> None:
        """Once. That a step was taken stays true when no more can be had about it."""
        if what not in run.told:
            run.told.add(what)
            with contextlib.suppress(LivedumpError, OSError):
                self.tell(run.event(what))

    def _make_snapshot(self, run: DumpRun, core: Core) -> Snapshot:
        def describe() -> dict[str, object]:
            known = {"verdict": run.verdict, "so_far": run.so_far, "reason": run.reason}
            return {**run.describe(), **known, "state": self.state.value}

        self._generation += 1
        return Snapshot(self.machine, core, run.registers, self._generation, describe, run.notes)

    # --------------------------------------------------------------------- steps

    def _expect_own(self, step: str) -> None:
        """Before any lock: a child may have been forked while another thread held it."""
        if os.getpid() != self._pid:
            raise StateError(
                f"{step} is not possible in a child of the process that made the dump",
                errno=errno.ECHILD,
            )

    def _current(self, step: str, *allowed: DumpState) -> DumpRun:
        run = self._run
        if run is None or (allowed and self.state not in allowed):
            raise StateError(
                f"{step} is not possible in state {self.state.name}",
                errno=errno.EINVAL,
                hint=self.expired or "",
            )
        return run

    def init(
        self,
        target: TargetLike | None,
        settings: DumpSettings | None = None,
        *,
        dump_id: bytes | None = None,
        since: bytes = b"",
        reference: int = -1,
    ) -> None:
        """INIT, while the machine runs. `target`: a path, an adopted Target (owned by the
        dump from the call on), or None for memory only. `dump_id`: 16 bytes that no other dump has;
        None: random ones. `since`: one of `bases`, what did not change since is left out, if the
        target is a pipe. `reference`: for tests, an fd to which the arena is copied in the pause,
        which then lasts as long as that takes. UsageError,
        StateError (EBUSY), TargetError (ETIMEDOUT: the target hangs), MachineError; nothing is left
        behind then."""
        settings = settings or DumpSettings()
        self._expect_own("INIT")
        with self._step:
            try:
                settings.check()
                settings = fitted_to_machine(self.machine, settings)
                settings = fitted_to_memory(self.machine, settings, target is not None)
                self._hanging.free_unwatched()
                self._expect_no_dump()
                self._expect_startable(settings)
                # Not in the time that the target has to answer.
                if isinstance(self.machine, LooksAhead):
                    self.machine.look_ahead()
            except BaseException:
                abandon(target, settings)
                raise
            self._init(target, settings, reference, dump_id, since)

    def expect_init(self, settings: DumpSettings) -> None:
        """What INIT would refuse whatever its target, and START after it: to be asked before a
        target is opened for this dump. StateError, MachineError, UsageError."""
        self._expect_own("INIT")
        self._expect_no_dump()
        self._expect_startable(fitted_to_machine(self.machine, settings))

    def _expect_startable(self, settings: DumpSettings) -> None:
        """Before anything is written: a dump that START refuses must not have cost one that was
        good."""
        if isinstance(self.machine, ChecksFirst):
            self.machine.check_start(settings.backend)

    def _expect_no_dump(self) -> None:
        self.errands.expect_none()
        if self._run is not None:
            raise StateError(
                f"there is a dump already, in state {self.state.name}",
                errno=errno.EBUSY,
                hint="release it first",
            )
        self._hanging.expect_none()

    def _init(
        self,
        target: TargetLike | None,
        settings: DumpSettings,
        reference: int,
        dump_id: bytes | None,
        since: bytes,
    ) -> None:
        run = prepare(
            self.machine,
            settings,
            target,
            self.errands,
            reference=reference,
            dump_id=dump_id,
            since=since,
        )
        try:
            self._begin(run)
        except BaseException:  # also of a signal's handler: nothing else knows of this dump
            run.free()
            self._retire(run)
            raise

    def _begin(self, run: DumpRun) -> None:
        """The state INIT. MachineError: no thread."""
        if run.files:
            run.start_keeper(self._finished)
        self.settings = run.settings
        self._run = run
        self._stage.enter(DumpState.INIT)
        if run.settings.max_age:
            self._watch_age(run)
        self._tell(Happened.INIT, run)

    def _watch_age(self, run: DumpRun) -> None:
        """MachineError: no thread."""

        def expire(is_too_old: Callable[[], bool]) -> None:
            with self._step:
                if is_too_old():
                    run.ended = (
                        f"released: older than its maximum age of {run.settings.max_age:g} s"
                    )
                    run.free()
                    self._retire(run, "by the host")

        AgeWatch(self._stage, run.settings.max_age, lambda: self._is_current(run), expire).start()

    def _is_current(self, run: DumpRun) -> bool:
        return self._run is run and not run.released

    def start(self) -> None:
        """START: the snapshot instant. On failure the machine runs on, and the dump stays in INIT;
        or it is released, where the machine's memory was protected already."""
        self._expect_own("START")
        with self._step:
            run = self._current("START", DumpState.INIT)
            assert run.core is not None
            expect_not_held("START", run.holding)
            try:
                self._start(run, run.core)
            except BaseException:
                if not run.released and not run.core.startable:
                    try:
                        run.free()
                    finally:
                        self._retire(run, "by a START that failed")
                raise
            self._tell(Happened.START, run)

    def _start(self, run: DumpRun, core: Core) -> None:
        core.start(self.machine, run.settings.quiesce_deadline)
        self._started(run, core)

    def sweep(self) -> None:
        """SWEEP: begin to make it durable; returns at once. See wait(). Without a target there is
        nothing to do: FINISH follows at once, and the snapshot stays in memory."""
        self._expect_own("SWEEP")
        with self._step:
            run = self._current("SWEEP", DumpState.START)
            assert run.core is not None
            if run.files is None:
                self._tell(Happened.FINISH, run)
                self._stage.enter(DumpState.FINISH)
                return
            run.core.sweep()
            self._stage.enter(DumpState.SWEEP)
            run.swept.set()

    def wait(self, timeout: float | None = None) -> bool:
        """True once the dump is finished (sealed, or broken: see verdict) or released; False after
        `timeout` seconds."""
        self._expect_own("waiting")
        return self._stage.wait_while(DumpState.SWEEP, timeout)

    def finish(self, timeout: float | None = None, *, check: bool = True) -> VerdictWord:
        """FINISH: wait for the seal. The verdict; without a target, which has no seal, what it is
        so far. InconsistentDump (OSError): the verdict is another than "consistent"; with
        check=False it is returned. StateError: no sweep is under way, or released; TimeoutError:
        after `timeout` seconds."""
        self._expect_own("FINISH")
        run = self._current("FINISH", DumpState.SWEEP, DumpState.FINISH)
        if not self.wait(timeout):
            raise TimeoutError(errno.ETIMEDOUT, f"the sweep has not ended: {self.progress()}")
        verdict = run.verdict if run.files else run.so_far
        if run is not self._run or run.released or verdict is None:
            raise StateError("the dump was released meanwhile", errno=errno.ECANCELED)
        if check and verdict != "consistent":
            raise run.inconsistent(verdict)
        return verdict

    def save(
        self, target: TargetLike, settings: DumpSettings | None = None, *, check: bool = True
    ) -> VerdictWord:
        """One whole dump: INIT, START, SWEEP, FINISH, RELEASE. "consistent", or with check=False
        whatever the verdict is. `target` may also be a store ("store:FOLDER"). What each of these
        raises; InconsistentDump (OSError): the dump is on the target, and is torn or incomplete; a
        store takes no incomplete one. UsageError: no target, to save nothing.

        A path that ends with .zarr or .icechunk takes the named arrays alone, as a Zarr group:
        docs/arrays.md. One that is not consistent is written with check=False only."""
        return save_in_one_call(self, target, settings, check=check)

    def release(self, by: str = "", *, dump_id: bytes | None = None) -> None:
        """RELEASE, from every state: the machine is at full speed, nothing is protected. A dump
        that was not sealed stays on its target as "incomplete". `by`: for `released`, such as
        "by its client". `dump_id`: the dump that is meant; StateError ESTALE: it is not there."""
        if os.getpid() != self._pid:
            return
        run = self._run
        if dump_id is not None and (run is None or run.dump_id != dump_id):
            raise StateError(f"RELEASE: dump {dump_id.hex()} is not there", errno=errno.ESTALE)
        if run is not None and run.core is not None:
            # Before any lock: the thread that holds one may wait for the machine or the target.
            run.free()
        elif self.state is DumpState.UNINIT:
            return  # also while an INIT waits for its target
        with self._step:
            if run is not None and self._run is run:
                self._retire(run, by)

    def _retire(self, run: DumpRun, by: str = "") -> None:
        run.wait_for_keeper()
        counters = run.core.counters() if run.core else Counters()
        self._last = run.outcome(counters, self.state.name, by)
        run.snapshot = None  # which refers to the run: memory goes without a garbage collection
        self._run = None
        if Happened.INIT in run.told:
            self.tell(self._last.event)
        self._stage.enter(DumpState.UNINIT)
        self._hanging.add(run)

    def _finished(self, run: DumpRun) -> None:
        if run.verdict and not run.released:
            self._tell(Happened.FINISH, run)
        self._stage.enter(DumpState.FINISH, still=lambda: self._is_current(run))

    def close(self) -> None:
        """RELEASE, for `with`."""
        self.release()
