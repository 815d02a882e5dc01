# SPDX-License-Identifier: GPL-2.0-or-later
"""Holding: one START in three steps, HOLD, ARM and GO, and the thread that keeps to their order and
to the deadline."""

from __future__ import annotations

import contextvars
import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from livedumpfs.core.capi import CData, check, ffi, lib
from livedumpfs.errors import MachineError, StateError
from livedumpfs.machines import LetRunByOthers, Machine
from livedumpfs.thread import needing_threads, start_thread

_SLICE_NS: Final = 100_000_000
"""A wait in C keeps Python's handlers of signals waiting; so it is one of many."""
_LET_GO_S: Final = 2.0
"""For the machine to run again after RELEASE. What its own function takes longer is its own."""


@dataclass(frozen=True)
class HoldTimes:
    """When the machine stood, in ns; 0: not yet. `wall` is CLOCK_REALTIME since the epoch."""

    stood_mono_ns: int = 0
    stood_wall_ns: int = 0
    ran_mono_ns: int = 0
    ran_wall_ns: int = 0


class Gaps:
    """What the holder, the thread that is inside START, does in the two gaps."""

    def __init__(self, handle: CData, seconds: float) -> None:
        self.handle = handle
        """ldfs_hold *, for a core of this process, which does the rest by itself."""
        self.seconds = seconds
        """How long the machine may stand."""
        self.why_not_held = ""
        """Why the machine may not have stood until GO, in half a sentence; "": it did."""

    def before_arm(self, machine: Machine) -> None:
        """The machine stands: wait for ARM. StateError ECANCELED: it will not come; MachineError
        EBUSY: the machine has run meanwhile."""
        others = machine if isinstance(machine, LetRunByOthers) else None
        lib.ldfs_hold_stands(self.handle)
        if others:
            others.rest(self.seconds)
        if not lib.ldfs_hold_wait(self.handle, lib.LDFS_HOLD_STANDS):
            raise StateError("the hold ended before ARM", errno=errno.ECANCELED)
        if others and (why := others.why_not_held() or others.look_again()):
            raise MachineError(f"ARM: {why} while it was held", errno=errno.EBUSY)

    def before_go(self, machine: Machine) -> None:
        """The instant is taken: wait for the end of the hold."""
        lib.ldfs_hold_armed(self.handle)
        lib.ldfs_hold_wait(self.handle, lib.LDFS_HOLD_ARMED)
        if isinstance(machine, LetRunByOthers):
            try:
                self.why_not_held = machine.why_not_held()
            except MachineError as error:  # it is let go all the same
                self.why_not_held = f"it is not known whether the guest stood: {error}"

    def runs(self) -> None:
        """The machine runs again."""
        lib.ldfs_hold_runs(self.handle)


class Holding:
    """Any thread may ask; the holder alone stops the machine, arms, and lets it go. It is its own
    guard: it waits no longer than `seconds` in all from when the machine stands."""

    def __init__(self, seconds: float, start: Callable[[Gaps], None]) -> None:
        """`start`: START with these gaps, which comes to its end by itself."""
        self.seconds = seconds
        out = ffi.new("ldfs_hold **")
        check(lib.ldfs_hold_make(int(seconds * 1e9), out), "hold the machine", MachineError)
        self._hold = ffi.gc(out[0], lib.ldfs_hold_free)
        self._gaps = Gaps(self._hold, seconds)
        self._start = start
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._work,),
            name="livedump-holder",
            daemon=True,
        )
        self.ended: Callable[[], None] = lambda: None
        """Called on the holder when all is over."""

    def _work(self) -> None:
        try:
            self._start(self._gaps)
        except BaseException as error:
            self._error = error
        lib.ldfs_hold_over(self._hold)
        self.ended()

    # ------------------------------------------------------------------- looking

    @property
    def stage(self) -> int:
        """enum ldfs_hold_stage."""
        return int(lib.ldfs_hold_await(self._hold, 0, 0))

    @property
    def is_on(self) -> bool:
        """The machine stands, or is about to: neither START nor another HOLD is possible."""
        return self.begun and bool(self.stage != lib.LDFS_HOLD_OVER)

    @property
    def begun(self) -> bool:
        """There is a holder, or was one."""
        return self._thread.ident is not None

    @property
    def stands(self) -> bool:
        """The machine stands."""
        return self.stage in (lib.LDFS_HOLD_STANDS, lib.LDFS_HOLD_ARMED)

    @property
    def by_go(self) -> bool:
        """GO ended it: until then the machine stood."""
        return bool(self._look().end == lib.LDFS_HOLD_GO) and not self._gaps.why_not_held

    @property
    def failed(self) -> bool:
        """A step raised something, or was not taken."""
        return self._error is not None

    @property
    def times(self) -> HoldTimes:
        """As far as they are known."""
        found = self._look()
        return HoldTimes(
            int(found.stood_mono_ns),
            int(found.stood_wall_ns),
            int(found.ran_mono_ns),
            int(found.ran_wall_ns),
        )

    def _look(self) -> CData:
        out = ffi.new("ldfs_hold_times *")
        lib.ldfs_hold_look(self._hold, out)
        return out

    # --------------------------------------------------------------------- steps

    def begin(self) -> None:
        """HOLD: returns when the machine stands. MachineError, or what START raises before that;
        the machine runs then."""
        with needing_threads("hold the machine"):
            start_thread(self._thread)
        try:
            self._await(lib.LDFS_HOLD_STANDS)
        except BaseException:  # of a signal's handler: no caller would know that it stands
            self.release()
            raise
        if self.stage == lib.LDFS_HOLD_OVER and self._error and not self.times.stood_mono_ns:
            raise self._error

    def arm(self) -> None:
        """ARM: returns when the instant is taken; the machine stands still. MachineError ETIMEDOUT:
        it was let go before; or what arming raises: it runs then."""
        lib.ldfs_hold_arm(self._hold)
        if self._await(lib.LDFS_HOLD_ARMED) == lib.LDFS_HOLD_OVER and self._error:
            raise self._why("ARM")

    def go(self) -> None:
        """GO: returns when the machine runs. MachineError ETIMEDOUT: it was let go before."""
        if self.stage < lib.LDFS_HOLD_ARMED:
            raise StateError("GO: ARM comes first", errno=errno.EINVAL)
        ended_by = lib.ldfs_hold_go(self._hold)
        self._await(lib.LDFS_HOLD_OVER)
        if ended_by != lib.LDFS_HOLD_GO or self._error:
            raise self._why("GO")
        if self._gaps.why_not_held:
            raise MachineError(f"GO: {self._gaps.why_not_held} before", errno=errno.ETIMEDOUT)

    def release(self) -> None:
        """RELEASE: it ends. Returns at once."""
        lib.ldfs_hold_release(self._hold)

    def wait_until_it_runs(self) -> None:
        """After release(), and no longer than it should take: a function of the machine's own may
        be late."""
        if self.begun:
            lib.ldfs_hold_await(self._hold, lib.LDFS_HOLD_OVER, int(_LET_GO_S * 1e9))

    def _await(self, stage: int) -> int:
        while (now := lib.ldfs_hold_await(self._hold, stage, _SLICE_NS)) < stage:
            pass
        return int(now)

    def _why(self, step: str) -> BaseException:
        """What to raise for a step that came too late."""
        end = self._look().end
        if end == lib.LDFS_HOLD_EXPIRED:
            return MachineError(
                f"{step}: the machine was let go after {self.seconds:g} s, when the deadline of "
                "HOLD passed",
                errno=errno.ETIMEDOUT,
                hint="a longer deadline of HOLD gives the other hosts more time",
            )
        if end == lib.LDFS_HOLD_RELEASED:
            return StateError(f"{step}: the dump was released meanwhile", errno=errno.ECANCELED)
        return self._error or StateError(f"{step}: the machine runs", errno=errno.EINVAL)


def expect_not_held(step: str, holding: Holding | None) -> None:
    """StateError EBUSY: the machine is held."""
    if holding is not None and holding.is_on:
        raise StateError(
            f"{step}: the machine is held",
            errno=errno.EBUSY,
            hint="ARM and GO are its next steps; RELEASE lets it go",
        )
