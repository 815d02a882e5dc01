# SPDX-License-Identifier: GPL-2.0-or-later
"""ByDumpId: the steps of a Client that name their dump by its id, and may be done twice."""

from __future__ import annotations

import errno
import time
from typing import Final

from livedumpfs import abi
from livedumpfs.abi import StepFlag
from livedumpfs.answers import Instant, put_id
from livedumpfs.errors import HostError, LivedumpError, TargetError, UsageError

_AGAIN_S: Final = 0.005
"""Until a step that is under way is asked for again."""
_MOST: Final = 2**64 - 1
"""What a member of a struct can hold."""
_LOOK_S: Final = 0.1
"""Between two looks at a START that is to come, at the most."""


class ByDumpId:
    """For a program that dumps several hosts at one instant."""

    device: str

    def _ioctl(self, command: int, payload: bytearray | None, kind: type[LivedumpError]) -> None:
        raise NotImplementedError

    def status(self) -> object:
        """See Client."""
        raise NotImplementedError

    def _init_under(self, dump_id: bytes | None, init: abi.Init, since: bytes) -> bytes:
        request = abi.InitId(init=init)
        put_id(request, dump_id)
        request.since[: len(since)] = list(since)
        buffer = bytearray(request)
        self._patiently(abi.INIT_ID, buffer, TargetError)
        return bytes(abi.InitId.from_buffer(buffer).dump_id)

    def start_as(self, dump_id: bytes | None, at_ns: int = 0, late_ns: int = 0) -> Instant:
        """START of the dump with that id; None: whatever dump there is. With an id it may be done
        twice. `at_ns`: at that time of CLOCK_REALTIME, begun no more than `late_ns` (0: LATE_NS of
        abi) after it; the answer is then ALREADY. StateError: ESTALE, another dump is there; ETIME,
        too late; ERANGE, too far ahead."""
        told = {"at_ns": at_ns, "late_ns": late_ns if at_ns else 0}
        flags = StepFlag.ASYNC if at_ns else StepFlag(0)
        while (found := self._step(abi.START_TYPED, dump_id, flags=flags, **told)).pending:
            ahead = at_ns / 1e9 - time.time()
            # Not just before the time: the host has something else to do then.
            time.sleep(_LOOK_S if ahead > 2 * _LOOK_S else max(ahead + 2 * _AGAIN_S, _AGAIN_S))
        return found

    def hold(self, dump_id: bytes | None, seconds: float) -> Instant:
        """HOLD: the machine stands, until GO or RELEASE, `seconds` at the most. With an id this and
        the next two may be done twice. HostError EOPNOTSUPP: this machine cannot be held."""
        if not 0 < seconds <= _MOST / 1e9:
            raise UsageError(f"HOLD: {seconds:g} s cannot be held", errno=errno.ERANGE)
        return self._step(abi.HOLD, dump_id, hold_ns=int(seconds * 1e9))

    def arm(self, dump_id: bytes | None) -> Instant:
        """ARM: the instant of a machine that is held, and stays so. HostError ETIMEDOUT: the time
        of HOLD is over."""
        return self._step(abi.ARM, dump_id)

    def go(self, dump_id: bytes | None) -> Instant:
        """GO: it runs, and stood until now. HostError ETIMEDOUT: the time of HOLD was over before;
        the dump is good as one of this host alone."""
        return self._step(abi.GO, dump_id)

    def sweep_as(self, dump_id: bytes | None) -> Instant:
        """SWEEP of that dump, as Client.sweep(). May be done twice. StateError ESTALE: another."""
        return self._step(abi.SWEEP_ID, dump_id)

    def release_as(self, dump_id: bytes | None) -> None:
        """RELEASE of that dump, in any state; nothing, when it was released already. StateError
        ESTALE: this host has not had that dump; EINPROGRESS: its INIT is under way."""
        request = abi.StepRequest(version=abi.VERSION)
        put_id(request, dump_id)
        self._by_id(abi.RELEASE_ID, bytearray(request), HostError)

    def _step(self, command: int, dump_id: bytes | None, **values: int) -> Instant:
        for name, value in values.items():
            if not 0 <= value <= _MOST:  # which ctypes would cut off
                raise UsageError(f"{name} is out of range: {value}", errno=errno.ERANGE)
        request = abi.StepRequest(version=abi.VERSION, **values)
        put_id(request, dump_id)
        buffer = bytearray(request)
        self._patiently(command, buffer, HostError)
        return Instant.of(abi.StepRequest.from_buffer(buffer))

    def _by_id(self, command: int, payload: bytearray, kind: type[LivedumpError]) -> None:
        """HostError ENOTTY: a host of an earlier version does not have it; or it is none."""
        try:
            self._ioctl(command, payload, kind)
        except LivedumpError as error:
            if error.errno != errno.ENOTTY:
                raise
            try:
                self.status()
            except LivedumpError:
                raise error from None
            raise HostError(
                f"the host of {self.device} is older than this program: it has no steps by dump id",
                errno=errno.ENOTTY,
                hint="start it again with this version",
            ) from error

    def _patiently(self, command: int, payload: bytearray, kind: type[LivedumpError]) -> None:
        """Ask again while an earlier call of the same step is under way: its own time ends it."""
        while True:
            try:
                return self._by_id(command, payload, kind)
            except LivedumpError as error:
                if error.errno != errno.EINPROGRESS:
                    raise
            time.sleep(_AGAIN_S)
