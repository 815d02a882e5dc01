# SPDX-License-Identifier: GPL-2.0-or-later
"""QemuMachine: the user's own QEMU, with the C core in its process (native/shim/)."""

from __future__ import annotations

import contextlib
import errno
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from livedumpfs.closing import Closing
from livedumpfs.core.capi import CData
from livedumpfs.errors import LivedumpError, MachineError, UsageError
from livedumpfs.machines.kernels.information import KernelInformation
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.machines.qemu import monitor
from livedumpfs.machines.qemu.backend import backend_size
from livedumpfs.machines.qemu.command_line import QemuCommand
from livedumpfs.machines.qemu.guest_kind import ask_kind
from livedumpfs.machines.qemu.guest_memory import GuestMemory, find_mapping, open_mapped
from livedumpfs.machines.qemu.memory_map import read_left_out, read_memory_map
from livedumpfs.machines.qemu.monitor import Monitor
from livedumpfs.machines.qemu.now import check_files, check_now, has_vmcoreinfo
from livedumpfs.machines.qemu.process import QemuProcess, shim_path
from livedumpfs.machines.qemu.snapshot_vcpus import SnapshotVcpus
from livedumpfs.machines.qemu.state_dump import StateDump
from livedumpfs.machines.qemu.urgent import Urgent
from livedumpfs.machines.qemu.vcpu import Vcpu
from livedumpfs.machines.shim import Shim
from livedumpfs.proc import proc_text

_START_S: Final = 30.0
_ENDED_S: Final = 10.0
"""For a QEMU that has hung up to end: on a busy computer half a second was too short once, and its
exit status was lost."""
_LEAST_S: Final = 0.1
_SHIM_LATER_S: Final = 0.25
"""When this process does not end a pause in time, the shim does so after this many seconds more."""
_CONTINUE: Final = b'{"execute": "cont", "id": "livedump-last-words"}\n'

_DISTURBS: Final = {
    "RESUME": "let the guest run",
    "WAKEUP": "let the guest run",
    "RESET": "reset the guest",
    "SHUTDOWN": "ended the guest",
}
"""Events that QEMU sends of a guest that is not just stopped any more."""


class QemuMachine(SnapshotVcpus, Closing):
    """A QEMU process with the user's own command line, started by this process. If this process
    dies, its memory is unprotected, and QEMU runs on."""

    name = "qemu"
    identity_mapped = False
    backends = ("uffd",)
    """For disks and network cards the kernel stores into the memory. With mprotect those stores
    would fail, and KVM_RUN too."""

    end_s = 7.0
    """Seconds that close() waits for QEMU's end: less than a host waits for close()."""

    def __init__(self, argv: Sequence[str]) -> None:
        """Start `argv`, QEMU's own program first, stopped before its first instruction. UsageError:
        a command line that cannot be dumped. MachineError: QEMU does not start. EndedAtOnce: with
        status 0 it has done what the options asked for, such as -help."""
        self.command = QemuCommand.parse(list(argv))
        self._ram = self.command.ask_ram()
        self._closed = False
        self._started = False
        self._worded = False
        """Whether the shim has last words: what it sends to QEMU's monitor when we are gone."""
        self._pause_until = 0.0
        self.resumed_ns = 0
        """See StopsLater."""
        self._urgent: Urgent | None = None
        """While we hold the guest."""
        self._disturbed = ""
        """What another program has done to the guest since the last stop, in a sentence."""
        self._told: bytes | None = None
        """What the guest has reported to QEMU's device `vmcoreinfo`."""
        with contextlib.ExitStack() as undo:
            folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="livedump-qemu-"))
            self._process = undo.enter_context(
                QemuProcess(self.command, self._ram, folder, shim_path(), _START_S)
            )
            undo.callback(self._end_process)
            with self._explained(), contextlib.ExitStack() as links:
                self.shim: Shim | None = links.enter_context(Shim(self._process.connection))
                # If it only lost the connection, the shim would let QEMU run.
                links.callback(self._end_unless_started)
                self._connect(links)
                self._links = links.pop_all()
            self._undo = undo.pop_all()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """When QEMU has ended meanwhile, raise how it ended instead."""
        try:
            yield
        except MachineError as error:
            if error.errno == errno.ECONNRESET and self._process.ended(_ENDED_S):
                raise self._process.ended_at_once() from error
            raise

    def _connect(self, links: contextlib.ExitStack) -> None:
        ended = self._process.ended
        assert self.shim is not None
        self.monitor = links.enter_context(
            Monitor(self._process.qmp, _START_S, alive=lambda: not ended(), on_event=self._on_event)
        )
        if self.command.stopped:
            self.shim.last_words(b"", -1)  # the shim gets all its threads before a stop
        else:
            self._keep_last_words()
        with self._refused():
            self._kind = ask_kind(self.monitor)
            self.check_start()
        self._states = links.enter_context(StateDump(self.monitor))
        backend, size = self._find_backend()
        self.arena = links.enter_context(self._adopt(size))
        self.memory_map: Sequence[PhysicalRange] = read_memory_map(
            self.monitor.hmp("info mtree -f"), backend, size
        )
        self._left_out = read_left_out(self.monitor.hmp("info ramblock"), backend)
        self._information = KernelInformation(self.arena, self.memory_map, self._kind.kernel)
        self._vcpus = len(self._look())
        self._room_vcpus: int | None = None
        """Most vCPUs that the present dump's target has room for; None: there is no limit."""
        self._accelerator = "kvm" if self.monitor.has_kvm() else "tcg"
        self._identity = self.monitor.identity()

    @contextlib.contextmanager
    def _refused(self) -> Iterator[None]:
        """UsageError: QEMU has a property that its command line did not show."""
        try:
            yield
        except MachineError as error:
            if error.errno != errno.ENOTSUP:
                raise
            raise UsageError(error.message, hint=error.hint) from error

    def _find_backend(self) -> tuple[str, int]:
        """Id and bytes of the guest's memory. UsageError: it cannot be dumped."""
        if self._ram:
            return self._ram.name, self._ram.size
        name = self.command.named
        return name, backend_size(self.monitor, name)

    def _adopt(self, size: int) -> GuestMemory:
        mapping = find_mapping(proc_text(f"/proc/{self.pid}/maps"), size)
        memory = GuestMemory(open_mapped(self.pid, mapping), size)
        try:
            assert self.shim is not None
            memory.expect_pages()
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

    def _keep_last_words(self, within: float = 0, urgent: Urgent | None = None) -> None:
        """Let the shim resume the guest when this process is gone, or after `within` seconds, and
        lower the threads of QEMU then that are urgent: none if it may not."""
        assert self.shim is not None
        self._worded = True
        words, threads = (_CONTINUE, self.monitor.fileno(), within), urgent.theirs if urgent else []
        try:
            self.shim.last_words(*words, threads)
        except MachineError as error:
            if not urgent or not threads or error.errno != errno.EPERM:
                raise
            urgent.leave()
            self.shim.last_words(*words)

    def _drop_last_words(self) -> None:
        assert self.shim is not None
        if self._worded:
            self.shim.last_words(b"", -1)
            self._worded = False

    @property
    def pid(self) -> int:
        """Process id of QEMU itself, not of its wrapper."""
        return self._process.pid

    def start(self) -> None:
        """Run the guest from its first instruction, unless the command line has -S."""
        self._started = True
        if not self.command.stopped:
            self.monitor.execute("cont")
            self._drop_last_words()

    @property
    def page_size(self) -> int:
        """See HasPages."""
        return self.arena.page_size

    @property
    def vcpus(self) -> int:
        """Number of vCPUs now, plugged ones too. After QEMU's end, the last known number."""
        with contextlib.suppress(MachineError):
            found = self.monitor.execute("query-cpus-fast")
            self._vcpus = len(found) if isinstance(found, list) else self._vcpus
        return self._vcpus

    def quiesce_ops(self) -> CData | None:
        """None: QEMU is stopped over its monitor."""
        return None

    @property
    def stop_asked_ns(self) -> int:
        """As Monitor.stop_asked_ns."""
        return self.monitor.stop_asked_ns

    @property
    def pause_left_s(self) -> float:
        """Seconds left of the pause that quiesce_for began."""
        return max(self._pause_until - time.monotonic(), _LEAST_S)

    def quiesce(self) -> None:
        """Stop all vCPUs and keep their registers. MachineError: the guest runs on."""
        self.quiesce_for(monitor.STOP_S)

    def quiesce_for(self, seconds: float) -> None:
        """As quiesce; after `seconds` the guest runs again, even if this process is gone."""
        self.check_start()
        self._expect_room()
        self._prepare_states()
        urgent = self._prepare_urgent()
        self._pause_until = time.monotonic() + seconds
        try:
            if self.monitor.live():  # else it was stopped by others, and we shall not resume it
                self._keep_last_words(seconds + _SHIM_LATER_S, urgent)
                self._urgent = urgent
                urgent.begin()
            self.monitor.stop(
                timeout=self.pause_left_s,
                until=self._pause_until,
                hurry=urgent.hurry_vcpus,
                calm=urgent.calm_vcpus,
            )
            self._disturbed = ""
            self._captured, self._told = self._capture()
        except BaseException:
            self._pause_until = 0.0
            self.resume()
            raise

    def _on_event(self, event: Mapping[str, object]) -> None:
        what = _DISTURBS.get(str(event.get("event")))
        if what:
            self._disturbed = f"another program has {what}"

    def rest(self, seconds: float) -> None:
        """See LetRunByOthers. The threads that were hurried are ordinary again."""
        self._end_urgent()
        self._pause_until = time.monotonic() + seconds
        if self._worded:
            self._keep_last_words(seconds + _SHIM_LATER_S)

    def why_not_held(self) -> str:
        """See LetRunByOthers. QEMU reports an event before it answers what was asked after it."""
        if self.monitor.status(timeout=self.pause_left_s) == "running":
            return "another program has let the guest run"
        return self._disturbed

    def look_again(self) -> str:
        """See LetRunByOthers. No event tells of a snapshot that was loaded, say."""
        with contextlib.suppress(MachineError):  # of another program's dump of it
            self._prepare_states()
        before = {one.number: one.registers for one in self._captured}
        now = {one.number: one.registers for one in self._capture()[0]}
        return "" if now == before else "another program has changed the guest's registers"

    def _prepare_urgent(self) -> Urgent:
        """Of the threads that are there now. MachineError."""
        self._end_urgent()
        found = self.monitor.execute("query-cpus-fast")
        vcpus = {one["thread-id"] for one in found} if isinstance(found, list) else set()
        return Urgent(self.pid, vcpus, [self.monitor.thread])

    def _end_urgent(self) -> None:
        if self._urgent:
            self._urgent.end()
            self._urgent = None

    def check_start(self, backend: str = "uffd") -> None:
        """See ChecksFirst; also checked at each quiesce."""
        del backend  # it has only one
        check_now(self.monitor)
        check_files(self.pid)

    def _expect_room(self) -> None:
        """MachineError EBUSY: the present dump's target has room for fewer vCPUs."""
        room = self._room_vcpus
        if room is not None and self.vcpus > room:
            raise MachineError(
                f"the guest has {self._vcpus} vCPUs now, INIT saw {room}",
                errno=errno.EBUSY,
                hint="release the dump, INIT anew",
            )

    def resume(self) -> None:
        """Undo one quiesce: a machine that was stopped before stays stopped. MachineError: QEMU has
        not confirmed within the pause that it runs."""
        over = self._pause_until <= time.monotonic()
        try:
            self.monitor.cont(timeout=None if over else self.pause_left_s)
            self.resumed_ns = time.monotonic_ns()
        finally:
            self._end_urgent()  # before the shim forgets the threads
        self._drop_last_words()

    def ended(self) -> bool:
        """Whether QEMU has ended by itself."""
        return self._process.ended()

    @property
    def exit_status(self) -> int:
        """Exit status of the child after QEMU's end, as in a shell."""
        return self._process.status()

    def detach(self) -> None:
        """Leave QEMU alone for good, at full speed and without a dump; only its end is awaited.
        MachineError."""
        with contextlib.ExitStack() as undo:
            undo.push(self._links)
            self.resume()

    # ------------------------------------------------------------------- looking

    def _capture(self) -> tuple[Sequence[Vcpu], bytes | None]:
        """The vCPUs of a stopped guest, and the VMCOREINFO that its kernel has reported to QEMU."""
        if not self._kind.has_notes:  # its monitor shows all, and the page tables besides
            return self._look(timeout=self.pause_left_s), None
        try:
            return self._states.take(timeout=self.pause_left_s)
        except MachineError as error:
            # Another dump or a migration is under way, or its dump's form is unknown.
            if error.errno not in (errno.EINVAL, errno.EPROTO):
                raise
            return self._look(timeout=self.pause_left_s), None

    def _prepare_states(self) -> None:
        if self._kind.has_notes:
            self._states.prepare()

    def _look(self, timeout: float | None = None) -> Sequence[Vcpu]:
        return self._kind.parse_registers(self.monitor.hmp("info registers -a", timeout=timeout))

    def limit_vcpus(self, most: int | None) -> None:
        """See LimitsVcpus."""
        self._room_vcpus = most

    def look_ahead(self) -> None:
        """Called at INIT, while the guest runs: find the kernel's VMCOREINFO. A search takes a
        second for each GiB or two of memory, too long for START."""
        with contextlib.suppress(LivedumpError, OSError):
            # Else the guest reports it to QEMU itself.
            if not (self._kind.has_notes and has_vmcoreinfo(self.monitor)):
                self._information.look([one.tables for one in self._look()])

    def _told_note(self, read: ReadSnapshot) -> bytes | None:
        del read  # QEMU has told it at START
        return self._told

    def console(self) -> bytes:
        """Empty: QEMU's command line says where the console is."""
        return b""

    def metadata(self) -> dict[str, object]:
        """Kind, accelerator, QEMU's command line, and the memory that is in no dump, in bytes."""
        return {
            "name": self.name,
            "identity": self._identity,
            "vcpus": self.vcpus,
            "accelerator": self._accelerator,
            "command": list(self.command.argv),
            "left_out": self._left_out,
        }

    def close(self) -> None:
        """Disconnect, and end QEMU; may be called twice. MachineError: it has not ended."""
        if not self._closed:
            self._closed = True
            with self._undo, self._links, contextlib.suppress(MachineError):
                self.resume()  # and no last words: this is no crash
