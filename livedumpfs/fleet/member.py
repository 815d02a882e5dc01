# SPDX-License-Identifier: GPL-2.0-or-later
"""One member of a fleet dump, on its worker: the steps of its host on a thread of its own, so that
no step waits for another member, and the worker's event loop waits for none."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from livedumpfs.errors import HostError, LivedumpError, os_cause
from livedumpfs.fleet.landing import Bases, Landed, Landing
from livedumpfs.fleet.manifest import WORST_LAST, MemberIncrement, Taken, Word
from livedumpfs.fleet.one_thread import OneThread
from livedumpfs.fleet.steps import Saved, Steps, Wanted

T = TypeVar("T")
LOOK_S = 0.1
"""Seconds between two looks at a dump that is being saved."""
HANGS_S = 30.0
"""Seconds after which a host that gives no answer to such a look has gone."""


@dataclass(frozen=True)
class MemberOutcome:
    """What became of a dump."""

    verdict: Word
    reason: str | None
    dump: str | None
    checksum: str | None
    increment: MemberIncrement | None = None
    """See MemberRecord."""


@dataclass(frozen=True)
class News:
    """How a member is."""

    saved: Saved
    outcome: MemberOutcome | None = None
    """None: it is under way."""


class Member:
    """From INIT to the end. `leave` ends it from every state, whatever step is under way."""

    def __init__(
        self,
        name: str,
        dump_id: bytes,
        open_steps: Callable[[], Steps],
        land: Callable[[Callable[[], Bases]], Landing],
    ) -> None:
        """`open_steps` and `land` are called on the member's thread: a host that hangs, or a slow
        store, is this member's alone. `land` gets what tells the host's bases. RuntimeError: there
        can be no more threads."""
        self.name = name
        self._id = dump_id
        self._open = open_steps
        self._land = land
        self._steps: Steps | None = None
        self._landing: Landing | None = None
        self._thread = OneThread(f"livedump-fleet-{name}")
        self._total: int | None = None
        self._taken: Taken | None = None
        self._left: str | None = None
        self._ended = False
        self._asked: float | None = None
        """time.monotonic() of the look that is under way while the dump is saved."""
        self.news = News(Saved(0, 0, 0, False))
        """The latest; replaced as a whole, so any thread may read it."""

    def submit(self, step: Callable[[], T]) -> Future[T]:
        """Take a step on this member's thread. One that was taken already gives the same answer,
        also after the end. HostError ECANCELED: it was left."""

        def run() -> T:
            if self._left is not None:
                raise HostError(self._left, errno=errno.ECANCELED)
            return step()

        if self._ended and self._left is None:
            known: Future[T] = Future()
            known.set_result(step())
            return known
        try:
            return self._thread.submit(run)
        except RuntimeError as error:  # left meanwhile
            raise HostError(self._left or str(error), errno=errno.ECANCELED) from error

    def seen(self) -> News:
        """How it is. While a host gives no answer to a look, its member is lost."""
        news, asked = self.news, self._asked
        if news.outcome is None and asked is not None and time.monotonic() - asked > HANGS_S:
            why = f"its host has given no answer for {HANGS_S:g} s"
            return replace(news, outcome=MemberOutcome("incomplete", why, None, None))
        return news

    # -------------------------------------------------------------- steps, on its thread

    def open(self) -> None:
        """Open the host."""
        if self._steps is None and not self._ended:
            self._steps = self._open()

    @property
    def _host(self) -> Steps:
        if self._steps is None:
            raise HostError("its host was not opened", errno=errno.EBADF)
        return self._steps

    def init(self, options: Mapping[str, Any]) -> int:
        """INIT. Bytes of memory."""
        if self._total is None:
            if self._landing is None:
                self._landing = self._land(self._host.bases)
            options = {**options, **self._landing.options}
            landing = self._landing
            self._total = self._host.init(Wanted(self._id, landing.path, options, landing.since))
            landing.handed_over()
            self.news = News(Saved(0, self._total, 0, False))
        return self._total

    def hold(self, seconds: float) -> None:
        """HOLD."""
        if self._taken is None:
            self._host.hold(seconds)

    def arm(self) -> None:
        """ARM."""
        if self._taken is None:
            self._host.arm()

    def go(self) -> Taken:
        """GO; then SWEEP."""
        return self._once(self._host.go)

    def start(self, at_ns: int, late_ns: int) -> Taken:
        """START at that time; then SWEEP."""
        return self._once(lambda: self._host.start(at_ns, late_ns))

    def _once(self, step: Callable[[], Taken]) -> Taken:
        """The instant, and from there on the dump goes on by itself. Asked again: the same."""
        if self._taken is None:
            self._taken = step()
            with contextlib.suppress(RuntimeError):  # left meanwhile
                self._thread.submit(self._save)
        return self._taken

    # ----------------------------------------------------------------------- saving

    def _save(self) -> None:
        """From SWEEP to the end; the machine is released as soon as the dump is sealed."""
        outcome, why = None, None
        try:
            outcome = self._follow()
        except (LivedumpError, OSError) as error:
            why = self._left or str(error)
        except BaseException as error:
            why = repr(error)
        self._end()
        self.news = News(self.news.saved, outcome or self._incomplete(why))
        self._thread.end()

    def _follow(self) -> MemberOutcome:
        assert self._landing
        self._ask(self._host.sweep)
        while not (saved := self._ask(self._host.saved)).finished:
            if self._left is not None:
                raise HostError(self._left, errno=errno.ECANCELED)
            self.news = News(saved)
            time.sleep(LOOK_S)
        self.news = News(replace(saved, finished=False))
        self._ask(self._host.release)
        word = saved.verdict or "incomplete"
        if word == "incomplete":
            return self._incomplete(saved.reason)
        landed = self._landing.finish(self._id)
        if WORST_LAST[landed.verdict] > WORST_LAST[word]:
            why = f"what has arrived says that it is {landed.verdict}"
            return _arrived(landed.verdict, why, landed, saved)
        return _arrived(word, saved.reason, landed, saved)

    def _ask(self, call: Callable[[], T]) -> T:
        """A call of the host that should come back at once; `seen` looks how long it takes."""
        self._asked = time.monotonic()
        try:
            return call()
        finally:
            self._asked = None

    def _incomplete(self, why: str | None) -> MemberOutcome:
        left = self._landing.left if self._landing else None
        return MemberOutcome("incomplete", why, left, None)

    # -------------------------------------------------------------------------- end

    def leave(self, why: str) -> None:
        """Release what this member has; its host is closed as soon as no step is under way. A
        finished dump stays. Any thread; harmless when done twice."""
        self._left = self._left or why
        if self._ended:
            return
        if self._steps is not None:
            with contextlib.suppress(LivedumpError, OSError):
                self._steps.release()
        with contextlib.suppress(RuntimeError):  # left twice
            self._thread.submit(self._end)
        self._thread.end()

    def _end(self) -> None:
        """On the member's thread: no step uses the open file meanwhile."""
        if self._ended:
            return
        self._ended = True
        if self._steps is not None:
            with contextlib.suppress(LivedumpError, OSError):
                self._steps.release()
        if self._landing is not None:
            self._landing.give_up()
        if self._steps is not None:
            self._steps.close()


def _arrived(verdict: Word, reason: str | None, landed: Landed, saved: Saved) -> MemberOutcome:
    """The host knows better than the store why it has read all."""
    increment = landed.increment
    if increment and not increment.since and saved.all_read:
        increment = msgspec.structs.replace(increment, all_read=saved.all_read)
    return MemberOutcome(verdict, reason, landed.dump, landed.checksum, increment)


def cause(error: BaseException) -> tuple[int, str]:
    """errno and sentence of an exception, for another process."""
    if isinstance(error, LivedumpError):
        return error.errno or 0, str(error)
    if isinstance(error, OSError) and error.errno and not str(error.strerror or ""):
        return error.errno, os_cause(error.errno)
    number = error.errno if isinstance(error, OSError) else 0
    return number or 0, " ".join(str(error).split()) or type(error).__name__
