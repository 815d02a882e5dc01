# SPDX-License-Identifier: GPL-2.0-or-later
"""LiveDump: INIT, START, SWEEP, FINISH, RELEASE of dumps of one machine, one after the other."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence

from livedumpfs.closing import Closing
from livedumpfs.core.arena import Arena
from livedumpfs.dump.age import AgeWatch
from livedumpfs.dump.core_dump import Core
from livedumpfs.dump.counters import Counters, Progress
from livedumpfs.dump.dump_files import TargetLike
from livedumpfs.dump.hanging import Hanging
from livedumpfs.dump.instant import Snapshot
from livedumpfs.dump.preparation import abandon, prepare
from livedumpfs.dump.run import DumpRun, Outcome
from livedumpfs.dump.spill import fitted_to_memory
from livedumpfs.dump.stage import DumpState, Stage
from livedumpfs.errors import LivedumpError, StateError, UsageError
from livedumpfs.formats import VerdictWord
from livedumpfs.formats.note import Note
from livedumpfs.machines import ChecksFirst, LooksAhead, Machine, best_backend, machine_for
from livedumpfs.settings import DumpSettings
from livedumpfs.targets import Errands


class LiveDump(Closing):
    """Dumps of one machine, or of an arena that the program's own threads write.

    With an arena: `quiesce` must return only when nothing writes it any more - no thread of the
    program, no system call or direct I/O into it under way, no other process - and `resume` lets
    the writers go. Both are called with the GIL on a thread that start() makes and waits for, until
    `quiesce_deadline` is over (ThreadMachine says what then); between the two, tens of microseconds
    of work are done at any size of the arena. Left out: the caller holds the writers.

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
    ) -> None:
        self.machine: Machine = machine_for(machine, quiesce, resume)
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

    # ------------------------------------------------------------------- looking

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
        reference: int = -1,
    ) -> None:
        """INIT, while the machine runs. `target`: a path, an adopted Target (owned by the
        dump from the call on), or None for memory only. `reference`: for tests, an fd to which the
        arena is copied within the pause, which then lasts as long as that takes. UsageError,
        StateError (EBUSY), TargetError (ETIMEDOUT: the target hangs), MachineError; nothing is left
        behind then."""
        settings = settings or DumpSettings()
        self._expect_own("INIT")
        with self._step:
            try:
                settings.check()
                settings = self._for_machine(settings)
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
            self._init(target, settings, reference)

    def expect_init(self, settings: DumpSettings) -> None:
        """What INIT would refuse whatever its target, and START after it: to be asked before a
        target is opened for this dump. StateError, MachineError, UsageError."""
        self._expect_own("INIT")
        self._expect_no_dump()
        self._expect_startable(self._for_machine(settings))

    def _for_machine(self, settings: DumpSettings) -> DumpSettings:
        return settings.for_machine(self.machine.backends, lambda: best_backend(self.machine))

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

    def _init(self, target: TargetLike | None, settings: DumpSettings, reference: int) -> None:
        run = prepare(self.machine, settings, target, self.errands, reference=reference)
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
            try:
                self._start(run, run.core)
            except BaseException:
                if not run.released and not run.core.startable:
                    try:
                        run.free()
                    finally:
                        self._retire(run, "by a START that failed")
                raise

    def _start(self, run: DumpRun, core: Core) -> None:
        core.start(self.machine, run.settings.quiesce_deadline)
        run.begun = True
        run.registers = self.machine.snapshot_registers()
        run.notes = self._take_notes(run)
        run.armed = True
        run.snapshot = self._make_snapshot(run, core)
        run.started.set()
        self._stage.enter(DumpState.START)

    def _take_notes(self, run: DumpRun) -> Sequence[Note]:
        """The instant is taken, and the dump is worth something without them too."""
        try:
            return self.machine.snapshot_notes(run.read)
        except (LivedumpError, OSError):
            return ()

    def sweep(self) -> None:
        """SWEEP: begin to make it durable; returns at once. See wait(). Without a target there is
        nothing to do: FINISH follows at once, and the snapshot stays in memory."""
        self._expect_own("SWEEP")
        with self._step:
            run = self._current("SWEEP", DumpState.START)
            assert run.core is not None
            if run.files is None:
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
        whatever the verdict is. What each of these raises; InconsistentDump (OSError): the dump is
        on the target, and is torn or incomplete. UsageError: no target, to save nothing."""
        if target is None:
            raise UsageError(
                "save needs a target: what is only in memory is gone with its release",
                hint="init(None) and start() give a snapshot",
            )
        self.init(target, settings)
        try:
            self.start()
            self.sweep()
            return self.finish(check=check)
        finally:
            self.release()

    def release(self, by: str = "") -> None:
        """RELEASE, from every state: the machine is at full speed, nothing is protected. A dump
        that was not sealed stays on its target as "incomplete". `by`: for `released`, such as
        "by its client"."""
        if os.getpid() != self._pid:
            return
        run = self._run
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
        self._stage.enter(DumpState.UNINIT)
        self._hanging.add(run)

    def _finished(self, run: DumpRun) -> None:
        self._stage.enter(DumpState.FINISH, still=lambda: self._is_current(run))

    def close(self) -> None:
        """RELEASE, for `with`."""
        self.release()
