# SPDX-License-Identifier: GPL-2.0-or-later
"""QemuMachine: the user's own QEMU, with the C core in its process (native/shim/)."""

from __future__ import annotations

import contextlib
import errno
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.core.capi import CData
from livedumpfs.errors import LivedumpError, MachineError, UsageError
from livedumpfs.formats import Registers
from livedumpfs.formats.note import Note
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.machines.qemu import monitor
from livedumpfs.machines.qemu.backend import backend_size
from livedumpfs.machines.qemu.command_line import QemuCommand
from livedumpfs.machines.qemu.guest_memory import GuestMemory, find_mapping, open_mapped
from livedumpfs.machines.qemu.information import KernelInformation
from livedumpfs.machines.qemu.memory_map import read_memory_map
from livedumpfs.machines.qemu.monitor import Monitor
from livedumpfs.machines.qemu.notes import INFORMATION_ROOM, NOTE_OF_VCPU, vcpu_notes
from livedumpfs.machines.qemu.now import check_files, check_now, has_vmcoreinfo
from livedumpfs.machines.qemu.process import QemuProcess
from livedumpfs.machines.qemu.registers import VcpuState, parse_registers
from livedumpfs.machines.qemu.state_dump import StateDump
from livedumpfs.machines.qemu.vmcoreinfo import check_vmcoreinfo
from livedumpfs.machines.shim import Shim

_START_S: Final = 30.0
_ENDED_S: Final = 0.5
_LEAST_S: Final = 0.1
_SHIM_LATER_S: Final = 0.25
"""When we do not keep the end of a pause ourselves the shim does, after that much more."""
_CONTINUE: Final = b'{"execute": "cont", "id": "livedump-last-words"}\n'


def shim_path() -> Path:
    """The shared object that is injected. MachineError: it was not built."""
    folder = Path(__file__).resolve().parents[2]
    found = sorted(folder.glob("_shim*.so"))
    if not found:
        raise MachineError(
            f"there is no shim in {folder}", errno=errno.ENOENT, hint="build it with `make`"
        )
    return found[0]


class QemuMachine(Closing):
    """A QEMU process of the user's own command line. We start it, and it is no worse off for it:
    when this process goes, its memory is free, and it runs on."""

    name = "qemu"
    architecture = "x86_64"
    elf_machine = 62
    identity_mapped = False
    backends = ("uffd",)
    """Disks and network cards have the kernel store for them: mprotect would give those an error,
    and KVM_RUN too."""

    end_s = 7.0
    """Seconds that close() waits for QEMU's end: less than a host gives its machine to close."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Start `argv`, QEMU's own program first, stopped before its first instruction.
        UsageError: a command line that cannot be dumped; MachineError: QEMU does not start;
        EndedAtOnce: with status 0 it has done what it was asked for, such as -help."""
        self.command = QemuCommand.parse(list(argv))
        self._ram = self.command.ask_ram()
        self._closed = False
        self._started = False
        self._worded = False
        """The shim has last words."""
        self._pause_until = 0.0
        self._captured: list[VcpuState] = []
        self._told: bytes | None = None
        with contextlib.ExitStack() as undo:
            folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="livedump-qemu-"))
            self._process = undo.enter_context(
                QemuProcess(self.command, self._ram, folder, shim_path(), _START_S)
            )
            undo.callback(self._end_process)
            with self._explained(), contextlib.ExitStack() as links:
                self.shim: Shim | None = links.enter_context(Shim(self._process.connection))
                # Hung up on, the shim would let it run.
                links.callback(self._end_unless_started)
                self._connect(links)
                self._links = links.pop_all()
            self._undo = undo.pop_all()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Of a QEMU that has ended meanwhile it is said how."""
        try:
            yield
        except MachineError as error:
            if error.errno == errno.ECONNRESET and self._process.ended(_ENDED_S):
                raise self._process.ended_at_once() from error
            raise

    def _connect(self, links: contextlib.ExitStack) -> None:
        ended = self._process.ended
        self.monitor = links.enter_context(
            Monitor(self._process.qmp, _START_S, alive=lambda: not ended())
        )
        if not self.command.stopped:
            self._keep_last_words()
        self._expect_dumpable()
        self._states = links.enter_context(StateDump(self.monitor))
        backend, size = self._find_backend()
        self.arena = links.enter_context(self._adopt(size))
        self.memory_map: Sequence[PhysicalRange] = read_memory_map(
            self.monitor.hmp("info mtree -f"), backend, size
        )
        self._information = KernelInformation(self.arena, self.memory_map)
        self._vcpus = len(self._look())
        self._room_vcpus: int | None = None
        """What the target of the dump that there is has room for; None: as many as there are."""
        self._accelerator = "kvm" if self.monitor.has_kvm() else "tcg"

    def _expect_dumpable(self) -> None:
        """UsageError: QEMU shows what was not seen on its command line."""
        try:
            self.check_start()
        except MachineError as error:
            if error.errno != errno.ENOTSUP:
                raise
            raise UsageError(error.message, hint=error.hint) from error

    def _find_backend(self) -> tuple[str, int]:
        """Id and bytes of what is the guest's memory. UsageError: it cannot be dumped."""
        if self._ram:
            return self._ram.name, self._ram.size
        name = self.command.named
        return name, backend_size(self.monitor, name)

    def _adopt(self, size: int) -> GuestMemory:
        mapping = find_mapping(Path(f"/proc/{self.pid}/maps").read_text(), size)
        memory = GuestMemory(open_mapped(self.pid, mapping), size)
        try:
            assert self.shim is not None
            self.shim.adopt(mapping.address, size, memory.fd)
        except BaseException:
            memory.close()
            raise
        return memory

    def _end_process(self) -> None:
        if not self._process.ended():
            self._process.end(self.end_s, kill=not self._started)

    def _end_unless_started(self) -> None:
        if not self._started:
            self._end_process()

    # ------------------------------------------------------------------- running

    def _keep_last_words(self, within: float = 0) -> None:
        """The shim lets the guest run when we have gone, or after so many seconds."""
        assert self.shim is not None
        self._worded = True
        self.shim.last_words(_CONTINUE, self.monitor.fileno(), within)

    def _drop_last_words(self) -> None:
        assert self.shim is not None
        if self._worded:
            self.shim.last_words(b"", -1)
            self._worded = False

    @property
    def pid(self) -> int:
        """Of QEMU itself, whatever it was started through."""
        return self._process.pid

    def start(self) -> None:
        """The first instruction, unless the command line had -S."""
        self._started = True
        if not self.command.stopped:
            self.monitor.execute("cont")
            self._drop_last_words()

    @property
    def vcpus(self) -> int:
        """As many as QEMU has now; some may be plugged in. Those it had last, when it has gone."""
        with contextlib.suppress(MachineError):
            found = self.monitor.execute("query-cpus-fast")
            self._vcpus = len(found) if isinstance(found, list) else self._vcpus
        return self._vcpus

    def quiesce_ops(self) -> CData | None:
        """None: QEMU is stopped over its monitor."""
        return None

    @property
    def stop_asked_ns(self) -> int:
        """See Monitor."""
        return self.monitor.stop_asked_ns

    @property
    def pause_left_s(self) -> float:
        """Of the pause that quiesce_for began."""
        return max(self._pause_until - time.monotonic(), _LEAST_S)

    def quiesce(self) -> None:
        """Stop all vCPUs, with their registers. MachineError: it runs on."""
        self.quiesce_for(monitor.STOP_S)

    def quiesce_for(self, seconds: float) -> None:
        """As quiesce; it runs again when it has stood for so long, even if we cannot say so."""
        self.check_start()
        self._expect_room()
        self._states.prepare()
        self._pause_until = time.monotonic() + seconds
        try:
            if self.monitor.live():  # else somebody else holds it, and we shall not let it go
                self._keep_last_words(seconds + _SHIM_LATER_S)
            self.monitor.stop(timeout=self.pause_left_s, until=self._pause_until)
            self._captured, self._told = self._capture()
        except BaseException:
            self._pause_until = 0.0
            self.resume()
            raise

    def check_start(self, backend: str = "uffd") -> None:
        """See ChecksFirst: what is asked of QEMU when it is to be stopped, too."""
        del backend  # it has one only
        check_now(self.monitor)
        check_files(self.pid)

    def _expect_room(self) -> None:
        """MachineError EBUSY: the target of this dump has room for fewer vCPUs."""
        room = self._room_vcpus
        if room is not None and self.vcpus > room:
            raise MachineError(
                f"the guest has {self._vcpus} vCPUs now, INIT saw {room}",
                errno=errno.EBUSY,
                hint="release the dump, INIT anew",
            )

    def resume(self) -> None:
        """Undo one quiesce: a machine that was stopped before stays so. MachineError: it does not
        say within its pause that it runs."""
        over = self._pause_until <= time.monotonic()
        self.monitor.cont(timeout=None if over else self.pause_left_s)
        self._drop_last_words()

    def ended(self) -> bool:
        """QEMU has ended by itself."""
        return self._process.ended()

    @property
    def exit_status(self) -> int:
        """Of what we started, after QEMU's end, as a shell has it."""
        return self._process.status()

    def detach(self) -> None:
        """Leave QEMU to itself, at full speed and without a dump, for good; what is left is to wait
        for its end. MachineError."""
        with contextlib.ExitStack() as undo:
            undo.push(self._links)
            self.resume()

    # ------------------------------------------------------------------- looking

    def _capture(self) -> tuple[list[VcpuState], bytes | None]:
        """The vCPUs of a guest that stands still, and what its kernel has told QEMU."""
        try:
            return self._states.take(timeout=self.pause_left_s)
        except MachineError as error:
            # Another dump or a migration is under way, or it is a QEMU that we do not know.
            if error.errno not in (errno.EINVAL, errno.EPROTO):
                raise
            return self._look(timeout=self.pause_left_s), None

    def _look(self, timeout: float | None = None) -> list[VcpuState]:
        return parse_registers(self.monitor.hmp("info registers -a", timeout=timeout))

    def registers(self) -> list[Registers]:
        """Live, of vCPUs that run meanwhile. MachineError."""
        return [one.registers for one in self._look()]

    def registers_by_number(self) -> dict[int, Registers]:
        """As `registers`, each by QEMU's number of the vCPU. MachineError."""
        return {one.number: one.registers for one in self._look()}

    def snapshot_registers(self) -> list[Registers]:
        """Registers of the last START. MachineError: there was none."""
        return list(self.snapshot_by_number().values())

    def snapshot_by_number(self) -> dict[int, Registers]:
        """As `snapshot_registers`. MachineError: there was no START."""
        if not self._captured:
            raise MachineError("there was no START", errno=errno.ENODATA)
        return {one.number: one.registers for one in self._captured}

    def note_room(self, vcpus: int) -> int:
        """For QEMU's note of each vCPU, and the kernel's VMCOREINFO."""
        return NOTE_OF_VCPU * vcpus + INFORMATION_ROOM

    def limit_vcpus(self, most: int | None) -> None:
        """See LimitsVcpus."""
        self._room_vcpus = most

    def snapshot_notes(self, read: ReadSnapshot) -> Sequence[Note]:
        """QEMU's CPU notes, and VMCOREINFO if the guest has one."""
        return vcpu_notes(self._captured, self._find_information(read))

    def look_ahead(self) -> None:
        """INIT, while the guest runs: where its kernel has put VMCOREINFO. To look through the
        memory takes a second for each GiB or two, and START is not to wait for it."""
        with contextlib.suppress(LivedumpError, OSError):
            if not has_vmcoreinfo(self.monitor):  # else the guest tells it itself
                self._information.look([one.controls[3] for one in self._look()])

    def _find_information(self, read: ReadSnapshot) -> bytes | None:
        """What the guest has told QEMU; or from the snapshot."""
        told = self._told and check_vmcoreinfo(self._told)
        return told or self._information.find(read, [one.controls[3] for one in self._captured])

    def console(self) -> bytes:
        """Empty: the console is where the command line put it."""
        return b""

    def metadata(self) -> dict[str, object]:
        """Kind, what runs the guest's code, and how QEMU was started."""
        return {
            "name": self.name,
            "vcpus": self.vcpus,
            "accelerator": self._accelerator,
            "command": list(self.command.argv),
        }

    def close(self) -> None:
        """Hang up, and end QEMU; may be called twice. MachineError: it takes its time."""
        if not self._closed:
            self._closed = True
            with self._undo, self._links, contextlib.suppress(MachineError):
                self.resume()  # and no last words for what is no death
