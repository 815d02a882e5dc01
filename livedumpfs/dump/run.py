# SPDX-License-Identifier: GPL-2.0-or-later
"""DumpRun: one dump and everything that ends with it; Outcome: what is known of it afterwards."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from livedumpfs import __version__
from livedumpfs.dump.core_dump import Core
from livedumpfs.dump.counters import Counters
from livedumpfs.dump.dump_files import DumpFiles
from livedumpfs.dump.event import DumpEvent, Happened
from livedumpfs.dump.held import Holding
from livedumpfs.dump.instant import Snapshot
from livedumpfs.dump.tracking import Increment, increment
from livedumpfs.dump.verdict import explain, explain_loss, inconsistent, judge
from livedumpfs.errors import InconsistentDump, LivedumpError, os_cause
from livedumpfs.formats import Registers, VerdictWord
from livedumpfs.formats.note import Note
from livedumpfs.formats.plan import new_dump_id
from livedumpfs.machines import Machine
from livedumpfs.settings import DumpSettings
from livedumpfs.thread import needing_threads, start_thread

_BACKENDS = {
    "sigsegv": "SIGSEGV in the machine's process",
    "uffd": "userfaultfd",
    "sigbus": "SIGBUS by userfaultfd in the machine's process",
    "auto": "not chosen yet",
}
"""How writes are noticed."""
_POLL_S = 0.5
_RELEASE_PATIENCE_S = 2.0
"""Seconds that RELEASE waits for the keeper, which may be in I/O that hangs."""


@dataclass(frozen=True)
class Outcome:
    """Of a dump that has gone."""

    counters: Counters = field(default_factory=Counters)
    verdict: VerdictWord | None = None
    """None: it had no target, and no START; or there was no dump."""
    failure: str | None = None
    reason: str | None = None
    target: str | None = None
    expired: str | None = None
    """Why the host itself released it."""
    released: str | None = None
    """By what, and in which state, in one sentence."""
    dump_id: bytes = b""
    """16 bytes; b"": there was no dump."""
    increment: Increment = field(default_factory=Increment)

    @property
    def event(self) -> DumpEvent:
        """Its RELEASE."""
        return DumpEvent(
            Happened.RELEASE,
            self.dump_id,
            self.target,
            self.verdict,
            self.reason,
            self.expired or self.released,
            errno=self.counters.failure.error,
            counters=self.counters,
        )


class DumpRun:
    """One dump. Its keeper thread does all writing of headers after INIT, so that no step waits for
    a slow target."""

    def __init__(
        self,
        machine: Machine,
        settings: DumpSettings,
        files: DumpFiles | None,
        dump_id: bytes | None = None,
    ) -> None:
        """`dump_id`: of a dump without files; None: a new one."""
        self.machine = machine
        self.settings = settings
        self.files = files
        self.core: Core | None = None
        self.holding: Holding | None = None
        """The last HOLD."""
        self.dump_id = files.plan.dump_id if files else dump_id or new_dump_id()
        self.registers: list[Registers] = []
        self.notes: Sequence[Note] = ()
        self.snapshot: Snapshot | None = None
        """From START on."""
        self.begun = False
        """START was reached: what lies on the target is of some dump."""
        self.armed = False
        """START is done."""
        self.verdict: VerdictWord | None = None
        """Final: sealed, or nothing can seal it any more."""
        self.error: str | None = None
        """First error of the keeper."""
        self.error_number = 0
        self.started = threading.Event()
        self.swept = threading.Event()
        self.released = False
        self.ended: str | None = None
        """Why the host itself released it."""
        self.told: set[Happened] = set()
        """What observers know."""
        self._keeper: threading.Thread | None = None
        self._letting_go = threading.Lock()
        self._gone = False
        """Core and files are freed."""

    def take(self, core: Core) -> None:
        """INIT is done: from now on the settings say what it made of them."""
        self.core = core
        self.settings = replace(self.settings, backend=core.backend)

    # ------------------------------------------------------------------- looking

    @property
    def target(self) -> str | None:
        """Its path; None: memory only."""
        return self.files.path if self.files else None

    @property
    def increment(self) -> Increment:
        """What it says of changes."""
        return self._increment_of(self.core.counters() if self.core else Counters())

    def _increment_of(self, counters: Counters) -> Increment:
        since = self.files.since if self.files else b""
        return increment(counters, self.machine, self.settings, since)

    @property
    def failure(self) -> str | None:
        """The first error in one sentence; None: none."""
        if self.core is None:
            return self.error
        failure = self.core.counters().failure
        return explain(failure, self.target, self.settings) or self.error

    @property
    def reason(self) -> str | None:
        """Why it is not consistent: its failure, or what it lost by its settings. None: it is, or
        it was not swept yet."""
        loss = explain_loss(self.core.counters(), self.settings) if self.core else None
        return self.failure or loss

    def inconsistent(self, verdict: VerdictWord) -> InconsistentDump:
        """What to raise for that verdict."""
        counters = self.core.counters() if self.core else Counters()
        number = counters.failure.error or self.error_number
        return inconsistent(verdict, counters, self.target, self.reason, number)

    @property
    def so_far(self) -> VerdictWord | None:
        """What the dump is worth if nothing else happens to it; None before START. "torn" does not
        get better, and "incomplete" stays."""
        if self.verdict or self.core is None or not self.armed:
            return self.verdict
        return "incomplete" if self.error else judge(self.core.counters())

    def at_release(self) -> VerdictWord | None:
        """The verdict for good, when nothing more will come: a target without a seal says
        incomplete, a snapshot in memory is what it was."""
        if self.files is not None:
            return self.verdict or "incomplete"
        return self.so_far

    def outcome(self, counters: Counters, state: str, by: str) -> Outcome:
        """When it is released, in `state`, by `by` ("": that is not known)."""
        sealed = self.files is None or self.verdict is not None
        words = ["released", *([by] if by else []), f"in state {state}"]
        sentence = " ".join(words) + ("" if sealed else ", before it was sealed")
        return Outcome(
            counters,
            self.at_release(),
            self.failure,
            self.reason,
            self.target,
            self.ended,
            sentence,
            self.dump_id,
            self._increment_of(counters),
        )

    def event(self, what: Happened) -> DumpEvent:
        """That this happened to it just now."""
        counters = self.core.counters() if self.core else Counters()
        verdict = self.verdict if self.files else self.so_far
        number = counters.failure.error or self.error_number
        return DumpEvent(
            what, self.dump_id, self.target, verdict, self.reason, errno=number, counters=counters
        )

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the snapshot. OSError."""
        assert self.core is not None
        found = bytearray(length)
        self.core.read_into(offset, memoryview(found))
        return bytes(found)

    def take_notes(self) -> Sequence[Note]:
        """The instant is taken, and the dump is worth something without them too."""
        try:
            return self.machine.snapshot_notes(self.read)
        except (LivedumpError, OSError):
            return ()

    def describe(self) -> dict[str, object]:
        """The meta data of now; JSON types."""
        machine, settings = self.machine, self.settings
        found: dict[str, object] = {
            "host_version": __version__,
            "policy": settings.policy,
            "backend": _BACKENDS[settings.backend],
            "arming": settings.arming,
            "machine": machine.metadata(),
            "arrays": [a.describe() for a in machine.arena.named],
            "verdict": self.verdict or "incomplete",
        }
        counters = self.core.counters() if self.core else Counters()
        if counters.instant_wall_ns:
            found |= {
                "instant": {
                    "wall_ns": counters.instant_wall_ns,
                    "mono_ns": counters.instant_mono_ns,
                },
                "pause_ns": counters.pause_ns,
                "counters": asdict(counters),
                "registers": [dict(one) for one in self.registers],
            }
        if self.core and counters.lost:
            found["lost"] = self.core.lost_ranges(machine.arena.size)
        return found

    # --------------------------------------------------------------------- its end

    def free(self) -> None:
        """RELEASE: the machine, whatever else hangs. Needs no lock."""
        assert self.core is not None
        self.released = True
        if self.holding:
            self.holding.release()
        self.core.release()
        if self.holding:
            self.holding.wait_until_it_runs()
        self.started.set()
        self.swept.set()

    def let_go(self) -> bool:
        """Free core and files of a released dump once nothing is at work on them; False: not
        yet, or another thread is at it. Any thread may ask; none waits for another one's I/O."""
        if not self._letting_go.acquire(blocking=False):
            return False
        try:
            self._gone = self._gone or self._freed()
            return self._gone
        finally:
            self._letting_go.release()

    def _freed(self) -> bool:
        if self.is_kept:
            return False
        if self.core and not (self.core.release() and self.core.free()):
            return False
        if self.files:
            self.files.close() if self.begun else self.files.discard()
        return True

    # ----------------------------------------------------------- the keeper thread

    def start_keeper(self, finished: Callable[[DumpRun], None]) -> None:
        """`finished` is called on the keeper's thread, after the seal or a failure. To be called at
        INIT: while many pages are unprotected there may be no room for a thread's stack.
        MachineError: no thread."""
        self._keeper = threading.Thread(
            target=self.keep, args=(finished,), name="livedump-keeper", daemon=True
        )
        with needing_threads("keep the dump's files"):
            start_thread(self._keeper)

    @property
    def is_kept(self) -> bool:
        """The keeper is at work on the files."""
        return self._keeper is not None and self._keeper.is_alive()

    def wait_for_keeper(self) -> None:
        """A moment, after RELEASE."""
        if self._keeper and self._keeper.ident is not None:
            self._keeper.join(_RELEASE_PATIENCE_S)

    def keep(self, finished: Callable[[DumpRun], None]) -> None:
        """From INIT to the seal, or to RELEASE."""
        try:
            if self._wait_for(self.started):
                self._attempt("write the header", self._write_started)
            if self._wait_for(self.swept) and self._wait_drained() and self.error is None:
                self._attempt("seal the dump", self._seal)
        finally:
            finished(self)

    def _attempt(self, doing: str, step: Callable[[], None]) -> None:
        """The dump goes on to its end, and is never sealed, whatever went wrong."""
        try:
            step()
        except Exception as error:
            self._failed(doing, error)

    def _failed(self, doing: str, error: Exception) -> None:
        if self.released:  # a pipe's writes end with it, and so may the machine
            return
        self.error = self._sentence(doing, error)
        self.error_number = getattr(error, "errno", None) or errno.EIO
        self.verdict = "incomplete"

    def _sentence(self, doing: str, error: Exception) -> str:
        if isinstance(error, LivedumpError):
            return str(error)
        cause = os_cause(error.errno or errno.EIO) if isinstance(error, OSError) else _words(error)
        return f"cannot {doing} on {self.target}: {cause}"

    def _write_started(self) -> None:
        if self.files:
            self.files.started(self.registers, self.notes, self.describe())

    def _wait_for(self, event: threading.Event) -> bool:
        """False: released."""
        while not self.released and not event.wait(_POLL_S):
            pass
        return not self.released

    def _wait_drained(self) -> bool:
        assert self.core is not None
        try:
            while not self.released:
                if self.core.wait(_POLL_S):
                    return True
        except Exception as error:  # the machine has gone, say
            self._failed("save the memory", error)
        return False

    def _seal(self) -> None:
        assert self.core is not None and self.files is not None
        counters = self.core.counters()
        verdict = judge(counters)
        described = {**self.describe(), "verdict": verdict}
        self.files.seal(verdict, self.registers, described, counters.target_end or None)
        self.verdict = verdict
        try:
            self.files.publish(verdict)
        except Exception as error:  # it is worth what it is worth, under the name that it has
            self.error = self._sentence("give a name to the dump", error)
            self.error_number = getattr(error, "errno", None) or errno.EIO


def _words(error: Exception) -> str:
    """For what is no error of ours, and of no target."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
