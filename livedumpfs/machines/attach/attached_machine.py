# SPDX-License-Identifier: GPL-2.0-or-later
"""AttachedMachine: a QEMU that runs already, by its monitor alone."""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.core.capi import CData, lib
from livedumpfs.errors import LivedumpError, MachineError
from livedumpfs.formats.note import VMCOREINFO, find_notes
from livedumpfs.machines.attach.description import read_devices
from livedumpfs.machines.attach.guest_monitor import GuestMonitor, OnEvent
from livedumpfs.machines.attach.guest_ram import find_memory, resident
from livedumpfs.machines.attach.obstacles import (
    answer,
    check_attachable,
    check_kind,
    obstacles,
)
from livedumpfs.machines.attach.received_memory import RamBlock, ReceivedMemory
from livedumpfs.machines.attach.repair import is_hanging, repair
from livedumpfs.machines.attach.snapshot_job import SHORT_S, SnapshotJob
from livedumpfs.machines.attach.socket_monitor import SocketMonitor
from livedumpfs.machines.attach.stop_events import SnapshotTimes, StopEvents
from livedumpfs.machines.attach.stream import MigrationStream
from livedumpfs.machines.attach.turn import take_turn
from livedumpfs.machines.attach.vcpu_devices import read_vcpus, told_information
from livedumpfs.machines.attach.window import ReadInto
from livedumpfs.machines.capabilities import StopTimes
from livedumpfs.machines.kernels.information import KernelInformation
from livedumpfs.machines.machine import InProcess, PhysicalRange, ReadSnapshot
from livedumpfs.machines.qemu.guest_kind import ask_kind
from livedumpfs.machines.qemu.snapshot_vcpus import SnapshotVcpus
from livedumpfs.machines.qemu.vcpu import Vcpu
from livedumpfs.units import format_size

_MOST_TOLD: Final = 1 << 16
_MOST_LEFT_OUT: Final = 256
_RESTORES_PAUSE: Final = (8, 2)
"""From then on QEMU leaves a guest paused that was so before."""
_QUIET_S: Final = 15.0
_MARGIN: Final = 64 << 20
"""Bytes that must stay free beside the guest's memory."""


class AttachedMachine(SnapshotVcpus, InProcess, Closing):
    """Nothing is put into QEMU, and nothing of it is changed between two dumps. START takes a
    background snapshot, and brings the whole memory into an arena of this process."""

    name = "qemu-attached"
    identity_mapped = False
    holds_nobody = True
    """See HoldsNobody: no program stores to the arena."""
    arena: ReceivedMemory

    def __init__(
        self, guest: str | Callable[[OnEvent], GuestMonitor], *, checked: bool = True
    ) -> None:
        """`guest`: the path of QEMU's monitor (QMP), a Unix socket; or what connects to a monitor.
        MachineError: it does not answer, or its guest cannot be dumped so. `checked`: as it is now;
        else see obstacles()."""
        self._events = StopEvents()
        self._lock = threading.Lock()
        self._bringing = threading.Lock()
        self._closed = False
        self._job: SnapshotJob | None = None
        self._told: tuple[int, int] | None = None
        self._times = SnapshotTimes()
        self.stop_times = StopTimes(0, 0, 0)
        """See BringsInstant."""
        self._received = 0
        with contextlib.ExitStack() as undo:
            self.monitor: GuestMonitor = undo.enter_context(
                SocketMonitor(guest, self._events)
                if isinstance(guest, str)
                else guest(self._events)
            )
            self._pid = self.monitor.pid
            self.version = check_kind(self.monitor)
            self._kind = ask_kind(self.monitor)
            if checked:
                check_attachable(self.monitor, self.version, self._pid)
            self._blocks, self.memory_map = find_memory(self.monitor)
            self.arena = undo.enter_context(ReceivedMemory(self._blocks))
            self._information = KernelInformation(self.arena, self.memory_map, self._kind.kernel)
            self._vcpus = self._count_vcpus()
            self._room_vcpus: int | None = None
            self.accelerator = "kvm" if self.monitor.has_kvm() else "tcg"
            self._identity = self.monitor.identity()
            self._undo = undo.pop_all()

    # ----------------------------------------------------------------- its memory

    def expected_memory(self) -> int:
        """Bytes that START will probably need here: what QEMU has of it, if that can be seen."""
        return min(self.arena.size, resident(self._pid) or self.arena.size)

    def _expect_room(self) -> None:
        # What the last instant takes is given back before.
        needed = max(self.expected_memory() - max(self.arena.resident(), 0), 0)
        if not lib.ldfs_headroom_ram(needed + _MARGIN):
            raise MachineError(
                f"the guest's memory ({format_size(needed)}) has no room in the memory that is "
                "free here",
                errno=errno.ENOMEM,
                hint="free some; `livedump qemu -- ...` starts a guest that needs none",
            )

    # ----------------------------------------------------------------- its instant

    def check_start(self, backend: str = "sigsegv") -> None:
        """See ChecksFirst. Changes nothing in QEMU."""
        super().check_start(backend)
        self._expect_connected()
        check_attachable(self.monitor, self.version, self._pid)
        self._expect_memory(find_memory(self.monitor))
        self._expect_room()

    def _expect_memory(
        self, found: tuple[list[RamBlock], Sequence[PhysicalRange]], *, placed: bool = True
    ) -> None:
        """It is the memory that was found at first, and, if `placed`, where it was."""
        blocks, memory_map = found
        if blocks != self._blocks:
            raise MachineError(
                "memory was plugged into the guest or out of it",
                errno=errno.ENOTSUP,
                hint="attach anew",
            )
        if placed and memory_map != self.memory_map:
            raise MachineError(
                "the guest's memory lies elsewhere since this was attached, as while its firmware "
                "runs",
                errno=errno.EBUSY,
                hint="try it again, or attach anew",
            )

    def obstacles(self) -> list[MachineError]:
        """Each reason why START would be refused now. MachineError: QEMU does not answer."""
        found = list(obstacles(self.monitor, self.version, self._pid))
        try:
            self._expect_room()
        except MachineError as error:
            found.append(error)
        return found

    def _expect_connected(self) -> None:
        if not self.monitor.connected:
            raise MachineError("QEMU has ended, or closed its monitor", errno=errno.ECONNRESET)

    def bring(self) -> None:
        """See BringsInstant."""
        self._expect_none_under_way()
        self.check_start()
        try:
            self._bring_alone()
        finally:
            if self._closed:
                self._close_arena()

    def _bring_alone(self) -> None:
        with self._bringing:
            self._expect_connected()
            self._captured = []
            self._times = SnapshotTimes()
            self.arena.forget_received()
            try:
                self._bring()
            except BaseException as error:
                self._captured = []
                if isinstance(error, MemoryError):
                    raise MachineError(
                        "there is no memory left here", errno=errno.ENOMEM
                    ) from error
                raise

    def _bring(self) -> None:
        job = SnapshotJob(
            self.monitor, self._events, self._pid, lets_run=self.version.before(_RESTORES_PAUSE)
        )
        with self._lock:
            if self._closed:
                raise MachineError("the connection to QEMU is closed", errno=errno.ENOTCONN)
            self._job = job
        job.begin()
        with job:
            times = job.receive(self._read)
        # While it migrates QEMU plugs nothing in or out; before that it may have.
        self._expect_memory(find_memory(self.monitor), placed=False)
        self.arena.show()
        # The two clocks as they are to each other now.
        mono = times.stopped_wall_ns - time.time_ns() + time.monotonic_ns()
        self.stop_times = StopTimes(times.stopped_wall_ns, mono, times.stop_ns)
        self._times = times

    def _expect_none_under_way(self) -> None:
        if self._job and not self._job.wait(SHORT_S):
            raise MachineError(
                "the snapshot that was given up has not ended yet",
                errno=errno.EBUSY,
                hint="try it again; QEMU cannot cancel it without harm",
            )

    def _read(self, read_into: ReadInto) -> None:
        stream = MigrationStream(read_into, self.arena)
        devices = read_devices(stream.read())
        vcpus = read_vcpus(devices, self.architecture)
        if self._room_vcpus is not None and len(vcpus) > self._room_vcpus:
            raise MachineError(
                f"the guest has {len(vcpus)} vCPUs now, INIT saw {self._room_vcpus}",
                errno=errno.EBUSY,
                hint="release the dump, INIT anew",
            )
        self.arena.expect_whole()
        self._received = stream.received
        self._captured, self._told = vcpus, told_information(devices)

    def give_up(self) -> None:
        """See BringsInstant."""
        with self._lock:
            if self._job:
                self._job.give_up()

    # --------------------------------------------------------------------- Machine

    def _count_vcpus(self) -> int:
        return len(answer(self.monitor, "query-cpus-fast", list[object]))

    @property
    def vcpus(self) -> int:
        """Number of vCPUs now. After QEMU's end, the last known number."""
        if not self._job or self._job.wait(0):  # else QEMU's monitor may not answer
            with contextlib.suppress(MachineError):
                self._vcpus = self._count_vcpus()
        return self._vcpus

    def limit_vcpus(self, most: int | None) -> None:
        """See LimitsVcpus."""
        self._room_vcpus = most

    def quiesce_ops(self) -> CData | None:
        """None: nothing stores to the arena."""
        return None

    def quiesce(self) -> None:
        """Nothing to do: the instant is there."""

    def resume(self) -> None:
        """Nothing to do."""

    def _look(self, timeout: float | None = None) -> Sequence[Vcpu]:
        return self._kind.parse_registers(self.monitor.hmp("info registers -a", timeout=timeout))

    def _told_note(self, read: ReadSnapshot) -> bytes | None:
        """What is at the place that the guest has reported to QEMU's device `vmcoreinfo`."""
        address, size = self._told or (0, 0)
        for one in self.memory_map:
            if one.start <= address < address + min(size, _MOST_TOLD) <= one.end:
                with contextlib.suppress(LivedumpError, OSError, ValueError):
                    note = read(one.arena_offset + address - one.start, min(size, _MOST_TOLD))
                    for name, _, at, length in find_notes(note):
                        if name == VMCOREINFO:
                            return note[at : at + length]
        return None

    def console(self) -> bytes:
        """Empty: QEMU's command line says where the console is."""
        return b""

    def metadata(self) -> dict[str, object]:
        """What QEMU it is, what of its memory a dump has not, and how long the last stop was."""
        return {
            "name": self.name,
            "identity": self._identity,
            "vcpus": self.vcpus,
            "accelerator": self.accelerator,
            "qemu": str(self.version),
            "monitor": self.monitor.place,
            "way": "background-snapshot",
            "snapshot": {**asdict(self._times), "stream_bytes": self._received},
            "left_out": dict(itertools.islice(self.arena.left_out.items(), _MOST_LEFT_OUT)),
        }

    def is_hanging(self) -> bool:
        """A snapshot that failed has left the guest hanging, as far as that can be seen."""
        with contextlib.suppress(OSError):
            return is_hanging(self.monitor, self._pid)
        return False

    def start(self) -> None:
        """It runs, or is freed if a snapshot has left it hanging."""
        with contextlib.suppress(MachineError), take_turn(self._pid, self.monitor.whose):
            repair(self.monitor, self._pid)

    def ended(self) -> bool:
        """QEMU has gone, or has closed its monitor."""
        return not self.monitor.connected

    def close(self) -> None:
        """End a snapshot that is under way, and disconnect. QEMU runs on. Harmless when done
        twice."""
        with self._lock:
            self._closed = True  # a START that comes later has no job
            job = self._job
        if job:
            job.leave()
        self.monitor.close()
        if job:
            job.let_go()
        # A START on another thread may still write to the arena: then its end closes that.
        self._close_arena()

    def _close_arena(self) -> None:
        if self._bringing.acquire(timeout=_QUIET_S):
            self._undo.close()
            self._bringing.release()
