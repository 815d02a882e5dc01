# SPDX-License-Identifier: GPL-2.0-or-later
"""RemoteCore: one dump of the C core in another process, where the machine's memory is."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import ffi, lib
from livedumpfs.core.gate import Gate
from livedumpfs.dump.blocks import Blocks
from livedumpfs.dump.brought import BroughtDump
from livedumpfs.dump.core_dump import (
    Core,
    CoreDump,
    CoreFiles,
    core_config,
    lost_page_ranges,
    snapshot_error,
    step_error,
)
from livedumpfs.dump.counters import Counters, take_counters
from livedumpfs.dump.held import Gaps
from livedumpfs.errors import MachineError, StateError, os_cause
from livedumpfs.formats import Plan
from livedumpfs.machines import BringsInstant, Machine, StopsLater, shim_of
from livedumpfs.machines.shim import READ_MOST, Shim, pack, refused
from livedumpfs.settings import DumpSettings
from livedumpfs.thread import without_signals

_TICK_NS: Final = 100_000_000
_MARKS_MOST: Final = 64 << 10
_PIPE: Final = 16
_COPY_S: Final = 30.0
_USERFAULTFD: Final = "/dev/userfaultfd"
_GONE: Final = (-errno.ECONNRESET, -errno.ETIMEDOUT)

_GIVEN_UP: Final = (-errno.ECANCELED, -errno.ENODATA)


class RemoteCore:
    """As CoreDump. The machine is stopped and resumed from here; the pause that is counted is that
    of the machine, not of the core alone."""

    gate: Gate | None = None

    def __init__(
        self,
        shim: Shim,
        settings: DumpSettings,
        plan: Plan | None,
        files: CoreFiles | None = None,
        *,
        size: int,
        reference: int = -1,
    ) -> None:
        """INIT, of `size` bytes of memory. StateError EBUSY: there is a dump; MachineError."""
        files = files or CoreFiles()
        self.backend = settings.backend or "uffd"
        self._shim = shim
        self._copies = reference >= 0
        self._blocks = Blocks(self._read, size)
        self._times = (0, 0, 0)
        self._last = Counters()
        self._lock = threading.Lock()
        self._freed = False
        self._released = False
        self._asked = False
        """For START, which has not been refused."""
        config, extents = core_config(settings, plan, files)
        payload = pack(config) + bytes(ffi.buffer(extents))
        with _userfaultfd() as device:
            given = [files.target_fd, files.table_fd, device, reference]
            flags = sum(1 << i for i, fd in enumerate(given) if fd >= 0)
            flags |= _PIPE if files.pipe else 0
            fds = [fd for fd in given if fd >= 0]
            code, _, self._number = shim.call(lib.LDFS_SHIM_INIT, flags, 0, payload, fds)
        if code == -errno.EBUSY:
            raise StateError("the machine has a dump already", errno=errno.EBUSY)
        if code == -errno.ETIMEDOUT:  # the shim takes back what comes of it later
            raise MachineError(
                "QEMU's side did not prepare the dump in time",
                errno=errno.ETIMEDOUT,
                hint="its target may hang",
            )
        if code == -errno.ECONNRESET:
            raise refused(code, "prepare the dump")
        if code:
            raise step_error("prepare", -code)
        if files.pipe:
            files.pipe.hand_over(self._record)

    def _ask(
        self, operation: int, first: int = 0, second: int = 0, payload: bytes = b""
    ) -> tuple[int, bytes]:
        """About this dump; -ENODATA once it is freed, whatever dump comes after it."""
        code, data, _ = self._shim.call(operation, first, second, payload, dump=self._number)
        return code, data

    def _record(self, offset: int, data: bytes | memoryview) -> int:
        """See PipeTarget."""
        return self._ask(lib.LDFS_SHIM_RECORD, offset, 0, bytes(data))[0]

    def start(self, machine: Machine, deadline_s: float, gaps: Gaps | None = None) -> None:
        """START: stop the machine, arm, let it go, all within the deadline. MachineError; the
        machine runs then, and nothing is protected."""
        try:
            # A signal's handler must not raise between the stop of the machine and its resume.
            without_signals("start the dump", lambda: self._start(machine, deadline_s, gaps))
        except BaseException:
            if not self.startable:
                self.release()
            raise

    @property
    def startable(self) -> bool:
        """See Core."""
        return not self._asked and not self._released

    @property
    def start_under_way(self) -> bool:
        """Never: what stops the machine has a deadline of its own."""
        return False

    def _start(self, machine: Machine, deadline_s: float, gaps: Gaps | None) -> None:
        asked = time.monotonic_ns()
        if self._copies:  # all of the memory, in the pause
            deadline_s += _COPY_S
        later = machine if isinstance(machine, StopsLater) else None
        if later:
            later.quiesce_for(deadline_s)
        else:
            machine.quiesce()
        stopped = time.monotonic_ns()
        try:
            if gaps:
                gaps.before_arm(machine)
            left = later.pause_left_s if later else deadline_s
            self._asked = True
            code = self._shim.call(lib.LDFS_SHIM_START, dump=self._number, within=left).code
            if gaps and not code:
                gaps.before_go(machine)
            armed = time.monotonic_ns()
        finally:
            machine.resume()
            if gaps:
                gaps.runs()
        now = time.monotonic_ns()
        if later:
            asked = max(asked, later.stop_asked_ns)
            now = max(armed, later.resumed_ns)
        self._times = (stopped - asked, now - armed, now - asked)
        if code == -errno.ETIMEDOUT:
            raise MachineError(
                f"the machine stood still for {deadline_s:g} s, and START was not done",
                errno=errno.ETIMEDOUT,
                hint="it runs on, and the dump is released",
            )
        if code == -errno.ECONNRESET:
            raise refused(code, "start the dump")
        if code:
            self._asked = False
            raise step_error("start", -code)

    def sweep(self) -> None:
        """SWEEP: begins and returns."""
        self._check(self._ask(lib.LDFS_SHIM_SWEEP)[0], "sweep")

    def wait(self, timeout_s: float) -> bool:
        """True once drained; False after the time. StateError ECANCELED: released; MachineError:
        the machine has gone."""
        deadline = time.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            left = max(0, deadline - time.monotonic_ns())
            code, _ = self._ask(lib.LDFS_SHIM_WAIT, min(left, _TICK_NS))
            if code in _GONE and not self._alive():
                raise MachineError("the machine has ended during the dump", errno=-code)
            if code in _GIVEN_UP and not self._released:
                raise MachineError("QEMU's side has given the dump up", errno=-code)
            if code != -errno.ETIMEDOUT:
                self._check(code, "wait for the dump")
                # The verdict goes by them: those of a moment ago may know of no loss.
                self._check(self._take_counters(), "learn what was saved")
                return True
            if left == 0:
                return False

    def _alive(self) -> bool:
        """-ETIMEDOUT is also what a wait answers."""
        return self._ask(lib.LDFS_SHIM_COUNTERS)[0] not in _GONE

    def release(self) -> bool:
        """RELEASE. True: nothing is under way any more; also when the machine has gone."""
        self._released = True
        self._blocks.close()
        code, _ = self._ask(lib.LDFS_SHIM_RELEASE)
        return code in (0, -errno.ENODATA, -errno.ECONNRESET)

    def free(self) -> bool:
        """Free a released dump; False: not possible yet. Its counters stay."""
        last = self.counters()
        with self._lock:
            if not self._freed:
                code, _ = self._ask(lib.LDFS_SHIM_FREE)
                if code in (0, -errno.ECONNRESET):
                    self._freed, self._last = True, last
            return self._freed

    def counters(self) -> Counters:
        """Taken now, or the last that could be had."""
        self._take_counters()
        return self._last

    def _take_counters(self) -> int:
        """0, or -errno: they cannot be had now, and the last stay."""
        if self._freed:
            return 0
        code, data = self._ask(lib.LDFS_SHIM_COUNTERS)
        if code or len(data) != ffi.sizeof("ldfs_counters"):
            return code or -errno.EPROTO
        counters = take_counters(ffi.from_buffer("ldfs_counters *", data))
        quiesce, resume, pause = self._times
        self._last = replace(counters, quiesce_ns=quiesce, resume_ns=resume, pause_ns=pause)
        return 0

    def lost_ranges(self, arena_size: int) -> list[list[int]]:
        """As CoreDump.lost_ranges."""
        return lost_page_ranges(self.marks(), self._last.granule_size, arena_size)

    def marks(self) -> npt.NDArray[np.uint8]:
        """As CoreDump.marks."""
        granules = self.counters().granules
        parts = [self._marks(at, granules) for at in self._pieces(granules)]
        return np.frombuffer(b"".join(parts), dtype=np.uint8)

    @staticmethod
    def _pieces(granules: int) -> Sequence[int]:
        return range(0, granules, _MARKS_MOST)

    def _marks(self, first: int, granules: int) -> bytes:
        count = min(_MARKS_MOST, granules - first)
        code, data = self._ask(lib.LDFS_SHIM_MARKS, first, count)
        return bytes(count) if code else data

    def read_into(self, offset: int, view: memoryview) -> None:
        """As CoreDump.read_into."""
        self._blocks.read_into(offset, view)

    def _read(self, offset: int, view: memoryview) -> None:
        for at in range(0, len(view), READ_MOST):
            part = view[at : at + READ_MOST]
            code, data = self._ask(lib.LDFS_SHIM_READ, offset + at, len(part))
            code = -errno.ENODATA if code == -errno.ECONNRESET else code
            if code:
                raise snapshot_error(-code, offset, len(view))
            part[:] = data
        if not view:
            code, _ = self._ask(lib.LDFS_SHIM_READ, offset, 0)
            if code:
                raise snapshot_error(-code, offset, 0)

    def _check(self, code: int, doing: str) -> None:
        if code in _GONE:
            raise refused(code, doing)
        if code:
            raise StateError(f"cannot {doing}: {os_cause(-code)}", errno=-code)


@contextlib.contextmanager
def _userfaultfd() -> Iterator[int]:
    """The device if we may open it: QEMU may have fewer rights than we. -1: it is on its own."""
    try:
        fd = os.open(_USERFAULTFD, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield -1
        return
    try:
        yield fd
    finally:
        os.close(fd)


def make_core(
    machine: Machine,
    settings: DumpSettings,
    plan: Plan | None,
    files: CoreFiles | None = None,
    *,
    reference: int = -1,
) -> Core:
    """INIT, where the machine's memory is, or is brought to: in this process, or in that of its
    shim."""
    shim = shim_of(machine)
    if shim is not None:
        return RemoteCore(shim, settings, plan, files, size=machine.arena.size, reference=reference)
    assert isinstance(machine.arena, Arena)
    if isinstance(machine, BringsInstant):
        # All of it comes anew each time: nothing to track, as tracking.py says.
        brought = replace(settings, track=False)
        return BroughtDump(machine, machine.arena, brought, plan, files, reference=reference)
    return CoreDump(machine.arena, settings, plan, files, reference=reference)
