# SPDX-License-Identifier: GPL-2.0-or-later
"""StepsById: the steps of a program that dumps several hosts, and may send a step twice: one that
was taken already is answered as it was. No step with an id is taken for another dump."""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from livedumpfs import abi
from livedumpfs.abi import AnswerFlag, StepFlag
from livedumpfs.answers import put_id
from livedumpfs.control.caller import Access
from livedumpfs.control.one_step import OneStep
from livedumpfs.control.requests import check_version
from livedumpfs.dump import DumpState, LiveDump
from livedumpfs.dump.appointment import Appointment
from livedumpfs.errors import StateError, UsageError
from livedumpfs.formats.plan import new_dump_id

_KEPT: Final = 256
"""Ids of dumps that were released, which no INIT may use again."""
_NONE: Final = bytes(abi.ID_SIZE)
_SWEPT: Final = (DumpState.SWEEP, DumpState.FINISH)


class StepsById:
    """Of one host. Any thread may call anything."""

    def __init__(self, dump: LiveDump, one_step: OneStep, access: Access) -> None:
        """`one_step`: what a step holds meanwhile. StateError EBUSY: there is another."""
        self._dump = dump
        self._access = access
        self._one_step = one_step
        self._lock = threading.Lock()
        self._under_way: set[tuple[str, bytes]] = set()
        """Steps that are being taken, and the ids that they were asked for with."""
        self._used: deque[bytes] = deque(maxlen=_KEPT)
        """Ids of all dumps, the present one too."""
        self._appointment: tuple[bytes, Appointment] | None = None
        self.steps: dict[int, Callable[[bytes], bytes]] = {
            abi.START_TYPED: self.start,
            abi.HOLD: self.hold,
            abi.ARM: self.arm,
            abi.GO: self.go,
            abi.SWEEP_ID: self.sweep,
        }
        """By number of the ioctl: from a struct livedump_instant to its answer."""

    def began(self) -> None:
        """INIT is done, whichever way."""
        self._used.append(self._dump.dump_id)

    # ---------------------------------------------------------------------- INIT

    def init(self, payload: bytes, take: Callable[[bytes, bytes, bytes], object]) -> bytes:
        """INIT_ID. `take`: INIT of a struct livedump_init, under that id, counted from that base
        (b"": none)."""
        request = abi.InitId.from_buffer_copy(payload)
        check_version("INIT", request.init.version)
        if request.answer or request.reserved or any(request.options):
            raise UsageError("INIT: a reserved member is not 0", errno=errno.EINVAL)
        wished, since = bytes(request.dump_id), bytes(request.since)
        if wished == _NONE:
            wished = new_dump_id()
        with self._marked("INIT", wished):
            if self._is_there(wished):
                request.answer = AnswerFlag.ALREADY
            elif wished in self._used:
                raise StateError(f"INIT: dump {wished.hex()} was released", errno=errno.ESTALE)
            else:
                take(bytes(request.init), wished, b"" if since == _NONE else since)
        put_id(request, wished)
        return bytes(request)

    def _is_there(self, wished: bytes) -> bool:
        return self._dump.state is not DumpState.UNINIT and self._dump.dump_id == wished

    # --------------------------------------------------------------- other steps

    def start(self, payload: bytes) -> bytes:
        """START_TYPED."""
        request = _read("START", payload, StepFlag.ASYNC, at=True)
        known = self._expect_meant("START", request)
        if known and self._dump.state is not DumpState.INIT:
            return self._answer(request, AnswerFlag.ALREADY)
        if not request.at_ns:
            if request.flags or request.late_ns:
                raise UsageError("START: at_ns is missing", errno=errno.EINVAL)
            return self._taken("START", request, self._dump.start)
        return self._start_at(request)

    def _start_at(self, request: abi.StepRequest) -> bytes:
        made = self._agreed(request)
        pending = made.pending
        try:
            if not made.wait(0 if request.flags & StepFlag.ASYNC else None):
                return self._answer(request, AnswerFlag.PENDING)
        except BaseException:
            self._appointment = None  # so that START can be tried again
            raise
        return self._answer(request, 0 if pending else AnswerFlag.ALREADY)

    def _agreed(self, request: abi.StepRequest) -> Appointment:
        """The START to come of this dump. StateError EBUSY: it is another."""
        with self._lock:
            dump_id, made = self._dump.dump_id, self._appointment
            if made and made[0] == dump_id and made[1].at_ns == request.at_ns:
                return made[1]
            if made and made[0] == dump_id and made[1].pending:
                raise StateError("START: another time was agreed on", errno=errno.EBUSY)
            if self._dump.state is not DumpState.INIT:
                raise StateError(
                    f"START is not possible in state {self._dump.state.name}", errno=errno.EINVAL
                )
            found = Appointment(
                self._dump,
                request.at_ns,
                request.late_ns or abi.LATE_NS,
                lambda: self._take("START", dump_id, self._dump.start),
            )
            self._appointment = dump_id, found
            return found

    def hold(self, payload: bytes) -> bytes:
        """HOLD."""
        request = _read("HOLD", payload, hold=True)
        self._access.check_hold(request.hold_ns / 1e9)
        if self._expect_meant("HOLD", request) and self._dump.is_held:
            return self._answer(request, AnswerFlag.ALREADY)
        return self._taken("HOLD", request, lambda: self._dump.hold(request.hold_ns / 1e9))

    def arm(self, payload: bytes) -> bytes:
        """ARM."""
        request = _read("ARM", payload)
        known = self._expect_meant("ARM", request)
        if known and self._dump.held and self._dump.state is not DumpState.INIT:
            return self._answer(request, AnswerFlag.ALREADY)
        return self._taken("ARM", request, self._dump.arm)

    def go(self, payload: bytes) -> bytes:
        """GO."""
        request = _read("GO", payload)
        known = self._expect_meant("GO", request)
        if known and self._dump.was_let_go:
            return self._answer(request, AnswerFlag.ALREADY)
        return self._taken("GO", request, self._dump.go)

    def sweep(self, payload: bytes) -> bytes:
        """SWEEP_ID."""
        request = _read("SWEEP", payload)
        if self._expect_meant("SWEEP", request) and self._dump.state in _SWEPT:
            return self._answer(request, AnswerFlag.ALREADY)
        return self._taken("SWEEP", request, self._dump.sweep)

    def release(self, payload: bytes, by: str) -> bytes:
        """RELEASE_ID. Needs no lock, as RELEASE."""
        request = _read("RELEASE", payload)
        meant = bytes(request.dump_id)
        if meant == _NONE:
            self._dump.release(by)
            return bytes(request)
        try:
            self._dump.release(by, dump_id=meant)
        except StateError as error:
            if error.errno != errno.ESTALE:
                raise
            if ("INIT", meant) in self._under_way:
                raise StateError(
                    "RELEASE: INIT of this dump is under way",
                    errno=errno.EINPROGRESS,
                    hint="ask again",
                ) from error
            if meant not in self._used:
                raise
            request.answer = AnswerFlag.ALREADY
        return bytes(request)

    def status(self, payload: bytes, look: Callable[[], abi.Status]) -> bytes:
        """STATUS_ID."""
        request = abi.StatusId.from_buffer_copy(payload)
        check_version("STATUS", request.status.version)
        meant, found = bytes(request.dump_id), self._dump.dump_id
        request.status = look()
        for one in (found, self._dump.dump_id):  # before and after
            _expect_same("STATUS", one if meant == _NONE else meant, one)
        put_id(request, found)
        return bytes(request)

    # ------------------------------------------------------------------- for all

    def _expect_meant(self, step: str, request: abi.StepRequest) -> bool:
        """Whether an id was given. StateError ESTALE: not that of the dump; EINVAL: no dump."""
        meant = bytes(request.dump_id)
        if meant == _NONE:
            return False
        if self._is_there(meant):
            return True
        if self._dump.state is DumpState.UNINIT and meant not in self._used:
            raise StateError(f"{step} is not possible in state UNINIT", errno=errno.EINVAL)
        what = "was released" if meant in self._used else "is not the dump of this host"
        raise StateError(f"{step}: dump {meant.hex()} {what}", errno=errno.ESTALE)

    def _taken(self, step: str, request: abi.StepRequest, take: Callable[[], object]) -> bytes:
        """Take the step, and answer."""
        self._take(step, bytes(request.dump_id), take)
        return self._answer(request)

    def _take(self, step: str, dump_id: bytes, take: Callable[[], object]) -> None:
        """StateError EBUSY: another step is under way; EINPROGRESS: this one is; ESTALE: there is
        another dump now. None comes while a step is under way."""
        with self._marked(step, dump_id), self._one_step(step):
            if dump_id != _NONE:
                _expect_same(step, dump_id, self._dump.dump_id)
            take()

    @contextmanager
    def _marked(self, step: str, dump_id: bytes) -> Iterator[None]:
        mark = step, dump_id
        with self._lock:
            if mark in self._under_way and dump_id != _NONE:
                raise StateError(
                    f"{step} is under way for this dump", errno=errno.EINPROGRESS, hint="ask again"
                )
            self._under_way.add(mark)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.discard(mark)

    def _answer(self, request: abi.StepRequest, answer: int = 0) -> bytes:
        """StateError ESTALE: these may be another dump's times, because it was released."""
        meant = bytes(request.dump_id)
        if meant == _NONE:
            meant = self._dump.dump_id
            put_id(request, meant)
        counters, held = self._dump.counters(), self._dump.held
        request.answer = answer
        request.instant_mono_ns = counters.instant_mono_ns
        request.instant_wall_ns = counters.instant_wall_ns
        request.pause_ns = counters.pause_ns if self._dump.state is not DumpState.INIT else 0
        if held:
            request.stood_mono_ns, request.stood_wall_ns = held.stood_mono_ns, held.stood_wall_ns
            request.ran_mono_ns, request.ran_wall_ns = held.ran_mono_ns, held.ran_wall_ns
        _expect_same("the answer", meant, self._dump.dump_id)
        return bytes(request)


def _expect_same(step: str, meant: bytes, found: bytes) -> None:
    """StateError ESTALE: another."""
    if meant != found:
        raise StateError(
            f"{step}: dump {meant.hex()} is not the dump of this host", errno=errno.ESTALE
        )


def _read(
    step: str,
    payload: bytes,
    flags: int = 0,
    *,
    at: bool = False,
    hold: bool = False,
) -> abi.StepRequest:
    """A struct livedump_instant. UsageError: EINVAL, or EPROTO for another version."""
    request = abi.StepRequest.from_buffer_copy(payload)
    check_version(step, request.version)
    wrong = [
        request.flags & ~flags,
        not at and (request.at_ns or request.late_ns),
        not hold and request.hold_ns,
        request.answer or request.reserved,
    ]
    if any(wrong):
        raise UsageError(f"{step}: a member that it does not have is not 0", errno=errno.EINVAL)
    return request
