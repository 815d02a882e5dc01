# SPDX-License-Identifier: GPL-2.0-or-later
"""CoreDump: one dump of the C core, from INIT until it is freed."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from livedumpfs.compression import usual_threads
from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import CData, check, ffi, lib
from livedumpfs.core.gate import Gate
from livedumpfs.dump.attempt import Attempt
from livedumpfs.dump.counters import Counters, take_counters
from livedumpfs.dump.held import Gaps
from livedumpfs.errors import LivedumpError, MachineError, StateError, os_cause
from livedumpfs.formats import KdumpPlan, Plan
from livedumpfs.machines import HoldsNobody, Machine
from livedumpfs.machines.signals import signal_cause
from livedumpfs.option import rows_of
from livedumpfs.settings import REAL_BACKENDS, Backend, DumpSettings
from livedumpfs.targets.pipe import PipeTarget
from livedumpfs.units import PAGE_SIZE

_HINTS = {
    errno.EACCES: "userfaultfd needs CAP_SYS_PTRACE, access to /dev/userfaultfd (Linux 6.1), or "
    "vm.unprivileged_userfaultfd=1; backend sigsegv needs none of them",
    errno.EPERM: "the memory is sealed against writing, or its descriptor is read-only",
    errno.ENOSYS: "the kernel cannot write-protect this memory by userfaultfd (shared memory needs "
    "Linux 5.19, on arm64 6.10, huge pages 6.4)",
    errno.EAGAIN: "the machine's process gets no more threads or mappings: see vm.max_map_count, "
    "ulimit -u, pids.max",
    errno.ENOMEM: "the machine's process gets no more memory or mappings: a smaller <pool>; see "
    "vm.max_map_count, ulimit -v, the limit of its memory cgroup",
}
"""What to do, where the system's own sentence is the cause."""
_NO_USERFAULTFD: Final = (
    "this process may not use userfaultfd at all (a seccomp filter, as containers have it?); "
    "backend sigsegv does without"
)
"""The same for backend sigbus."""
_CAUSES = {
    errno.ECHILD: (
        "the arena is not this process's",
        "it belongs to the process that made it, not to a child of that",
    ),
    errno.ESTALE: (
        "a discard since INIT could not protect its pages again",
        "release the dump, then INIT anew",
    ),
    errno.ETIMEDOUT: (
        "the machine did not stop in time",
        "a longer <quiesce_deadline> gives it more time",
    ),
}
"""Cause and what to do, where the number's sentence is about something else."""

_GONE: Final = -errno.ECANCELED
_USERS_PATIENCE_S = 2.0
"""For readers on their way out of a dump that is to be freed."""
_USERS_POLL_S = 0.01


def core_config(
    settings: DumpSettings,
    plan: Plan | None,
    files: CoreFiles,
) -> tuple[CData, CData]:
    """struct ldfs_dump_config, and the extents that it points to."""
    extents = [(e.arena_offset, e.length, e.target_offset) for e in plan.extents] if plan else []
    kept = ffi.new("ldfs_extent[]", extents)
    config = ffi.new("ldfs_dump_config *")
    for one in rows_of(type(settings)):
        if one.core:
            setattr(config, one.core, one.kind.to_core(getattr(settings, one.name)))
    config.pool_auto = settings.pool_is_auto
    if settings.pool_is_auto and settings.spill_limit:
        config.pool_size = min(config.pool_size, settings.spill_limit)
    config.uffd_fd = -1
    config.target_fd, config.table_fd = files.target_fd, files.table_fd
    config.target_reads_zero = files.reads_zero
    config.target_direct = not settings.buffered
    config.extents, config.extent_count = kept, len(extents)
    if plan:
        config.granule_size = plan.granule_size
        config.table_offset = plan.table_offset
        config.dump_id = list(plan.dump_id)
    if isinstance(plan, KdumpPlan):
        config.packed = True
        config.codec = plan.codec
        config.threads = usual_threads(settings.threads)
        config.descriptors_offset = plan.descriptors_offset
        config.zero_page_offset = plan.data_offset
    config.stream = files.pipe.stream if files.pipe else ffi.NULL
    if files.since:
        config.since = list(files.since)
    return config, kept


@dataclass(frozen=True)
class CoreFiles:
    """Where the core writes. It duplicates the fds; the pipe must outlive the dump."""

    target_fd: int = -1
    """-1: none."""
    table_fd: int = -1
    reads_zero: bool = False
    """What was never written to the target reads as zeros."""
    pipe: PipeTarget | None = None
    """All is written there."""
    since: bytes = b""
    """Dump id of the base, whose granules may be left out where they did not change; b"": none."""


def step_error(step: str, error: int, backend: str = "") -> LivedumpError:
    """What to raise when INIT ("prepare") or START ("start") gave that errno."""
    kind = LivedumpError if error == errno.EINVAL else MachineError
    known = signal_cause(error, backend) or _CAUSES.get(error)
    if not known and error == errno.EACCES and backend == "sigbus":
        known = os_cause(error), _NO_USERFAULTFD
    cause, hint = known or (os_cause(error), _HINTS.get(error, ""))
    return kind(f"cannot {step} the dump: {cause}", errno=error, hint=hint)


def snapshot_error(error: int, offset: int, length: int) -> Exception:
    """What to raise when reading the snapshot gave that errno."""
    if error in (errno.EIO, errno.ENODATA):
        return OSError(error, f"snapshot at offset {offset:#x}: {os_cause(error)}")
    return LivedumpError(
        f"cannot read {length} bytes of the snapshot at offset {offset:#x}: {os_cause(error)}",
        errno=error,
    )


def lost_page_ranges(
    marks: npt.NDArray[np.uint8], granule_size: int, arena_size: int
) -> list[list[int]]:
    """Pages of the granules in state LOST: [first, end) of each run, as page numbers."""
    lost = np.concatenate(([0], marks == lib.LDFS_G_LOST, [0])).astype(np.int8)
    edges = np.flatnonzero(np.diff(lost)).reshape(-1, 2)
    pages, last = granule_size // PAGE_SIZE, arena_size // PAGE_SIZE
    return [[int(a) * pages, min(int(b) * pages, last)] for a, b in edges]


class Core(Protocol):
    """One dump, from INIT until it is freed, wherever its memory is."""

    backend: Backend
    """What notices stores; never "auto"."""
    gate: Gate | None
    """For readers in C; None: the memory is in another process."""

    def start(self, machine: Machine, deadline_s: float, gaps: Gaps | None = None) -> None:
        """START. MachineError (OSError), or what the machine's own quiesce raised. After an
        exception nothing is protected: either START can be tried again, or it is released.
        `gaps`: between its steps."""

    @property
    def startable(self) -> bool:
        """START has not been done, nor RELEASE."""

    @property
    def start_under_way(self) -> bool:
        """A START that failed waits for a function of the machine that has not returned: there is
        no other, and the dump cannot be freed."""

    def sweep(self) -> None:
        """SWEEP: begins and returns."""

    def wait(self, timeout_s: float) -> bool:
        """True once drained; False after the time. StateError ECANCELED: released; MachineError:
        the machine has gone."""

    def release(self) -> bool:
        """RELEASE. The machine is free afterwards; False: a thread still hangs in the target's
        I/O."""

    def free(self) -> bool:
        """Free a released dump; False: not possible yet. Its counters stay."""

    def counters(self) -> Counters:
        """Taken now, or just before it was freed."""

    def lost_ranges(self, arena_size: int) -> list[list[int]]:
        """Pages that are lost: [first, end) of each run, as page numbers of the arena."""

    def marks(self) -> npt.NDArray[np.uint8]:
        """Of each granule its state and how it was saved, as ldfs_dump_marks gives them."""

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with snapshot bytes. OSError ENODATA, EIO; LivedumpError EINVAL: outside the
        arena."""


class CoreDump:
    """Any thread may call anything; the caller keeps INIT, START, SWEEP and free apart."""

    def __init__(
        self,
        arena: Arena,
        settings: DumpSettings,
        plan: Plan | None,
        files: CoreFiles | None = None,
        *,
        reference: int = -1,
    ) -> None:
        """INIT. `files` belong to `plan`; both None: memory only. `reference`: of tests, see
        native/life/reference.h. StateError EBUSY: the arena has a
        dump."""
        self._arena = arena.handle  # keeps the memory mapped
        config, kept = core_config(settings, plan, files or CoreFiles())
        out = ffi.new("ldfs_dump **")
        try:
            rc = lib.ldfs_dump_init(self._arena, config, out)
            if not rc:
                self.gate: Gate | None = Gate(out[0])
            if not rc and reference >= 0:
                check(lib.ldfs_dump_set_reference(out[0], reference), "keep a reference")
        except BaseException:  # of a signal's handler, as it returns: it is made all the same
            if out[0] != ffi.NULL:
                lib.ldfs_dump_release(out[0])
                lib.ldfs_dump_free(out[0])
            raise
        del kept
        if rc == -errno.EBUSY:
            raise StateError(
                "the arena has a dump already, or the target of its last one still hangs",
                errno=errno.EBUSY,
                hint="release it, or wait for the target",
            )
        if rc:
            raise step_error("prepare", -rc, settings.backend)
        self._dump: CData = out[0]
        self.backend = REAL_BACKENDS[lib.ldfs_dump_backend(self._dump)]
        self._pid = os.getpid()
        self._lock = threading.Condition()
        self._users = 0
        self._closed = False
        """For the calls that come now: free() is under way, or done."""
        self._freed = False
        self._last = Counters()
        self._attempt: Attempt | None = None
        """The last START, if it had a thread of its own."""

    @contextmanager
    def _using(self) -> Iterator[CData | None]:
        """The core's dump, which is not freed meanwhile; None when it has been, or is about to
        be."""
        if os.getpid() != self._pid:  # forked perhaps while another thread had the lock
            yield None if self._closed else self._dump
            return
        with self._lock:
            dump = None if self._closed else self._dump
            self._users += dump is not None
        try:
            yield dump
        finally:
            with self._lock:
                self._users -= dump is not None
                self._lock.notify_all()

    def start(self, machine: Machine, deadline_s: float, gaps: Gaps | None = None) -> None:
        """START. MachineError (OSError), or what the machine's own quiesce raised."""
        self._expect_none_under_way()
        native = machine.quiesce_ops()
        python = None if native else Attempt(machine, deadline_s)
        hold, most = gaps.handle if gaps else ffi.NULL, int(deadline_s * 1e9)

        def start(ops: CData) -> int:
            with self._using() as dump:
                return int(lib.ldfs_dump_start_held(dump, ops, most, hold) if dump else _GONE)

        try:
            if python is None:
                rc = start(native)
            elif isinstance(machine, HoldsNobody) and machine.holds_nobody:
                rc = python.run_here(start)
            else:
                self._attempt = python
                rc = python.run(start)
            if rc < 0:
                raise step_error("start", -rc, self.backend)
        except BaseException:
            if not self.startable or (python and python.may_arm):
                self.release()  # the instant is taken, but what is armed would not be swept
            raise

    def _expect_none_under_way(self) -> None:
        if self.start_under_way:
            raise StateError(
                "a function of the last START has not returned",
                errno=errno.EBUSY,
                hint="wait for it: its resume is called then",
            )

    @property
    def start_under_way(self) -> bool:
        """See Core."""
        return self._attempt is not None and self._attempt.under_way

    @property
    def startable(self) -> bool:
        """See Core."""
        with self._using() as dump:
            return dump is not None and lib.ldfs_dump_phase(dump) == lib.LDFS_PHASE_READY

    def sweep(self) -> None:
        """SWEEP: begins and returns."""
        check(lib.ldfs_dump_sweep(self._dump), "sweep", StateError)

    def wait(self, timeout_s: float) -> bool:
        """True once drained; False after the time. StateError ECANCELED: released."""
        with self._using() as dump:
            rc = lib.ldfs_dump_wait(dump, int(timeout_s * 1e9)) if dump else -errno.ECANCELED
        if rc == -errno.ETIMEDOUT:
            return False
        check(rc, "wait for the dump", StateError)
        return True

    def release(self) -> bool:
        """RELEASE. The machine is free afterwards; False: a thread still hangs in the target's
        I/O."""
        with self._using() as dump:
            return dump is None or bool(lib.ldfs_dump_release(dump) == 0)

    def free(self) -> bool:
        """Free a released dump; False: not possible yet. Its counters stay."""
        last = self.counters()
        if self.start_under_way:  # which cannot be ended
            return False
        with self._lock:
            self._last, self._closed = last, True
            if not self._freed and self._users_gone():
                self._freed = lib.ldfs_dump_free(self._dump) == 0
            return self._freed

    def _users_gone(self) -> bool:
        """RELEASE has sent them all out of the core; they leave as soon as they run, Python's with
        the GIL. False: not yet."""
        assert self.gate
        end = time.monotonic() + _USERS_PATIENCE_S
        while not (gone := not self._users and self.gate.close()) and time.monotonic() < end:
            self._lock.wait(_USERS_POLL_S)
        return gone

    def counters(self) -> Counters:
        """Taken now, or just before it was freed."""
        out = ffi.new("ldfs_counters *")
        with self._using() as dump:
            if dump is None:
                return self._last
            lib.ldfs_dump_counters(dump, out)
        return take_counters(out)

    def lost_ranges(self, arena_size: int) -> list[list[int]]:
        """Pages that are lost: [first, end) of each run, as page numbers of the arena."""
        return lost_page_ranges(self.marks(), self.counters().granule_size, arena_size)

    def marks(self) -> npt.NDArray[np.uint8]:
        """Of each granule its state and how it was saved, as ldfs_dump_marks gives them."""
        marks: npt.NDArray[np.uint8] = np.zeros(self.counters().granules, dtype=np.uint8)
        with self._using() as dump:
            if dump is not None:
                lib.ldfs_dump_marks(dump, 0, len(marks), ffi.from_buffer("uint8_t[]", marks))
        return marks

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with snapshot bytes. OSError ENODATA, EIO; LivedumpError EINVAL: outside the
        arena."""
        length = len(view)
        with self._using() as dump:
            buffer = ffi.from_buffer("char[]", view, require_writable=True)
            rc = lib.ldfs_dump_read(dump, offset, buffer, length) if dump else -errno.ENODATA
        if rc:
            raise snapshot_error(-rc, offset, length)
