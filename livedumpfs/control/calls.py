# SPDX-License-Identifier: GPL-2.0-or-later
"""Control: every file and ioctl of a mount, by name and number. Any thread may call anything.

A step (INIT, START, the beginning of SWEEP) holds `_one_step`; a step that comes meanwhile gets
EBUSY, and never waits. RELEASE holds nothing: it must get through whatever else hangs.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from livedumpfs import abi
from livedumpfs.abi import State
from livedumpfs.control import report
from livedumpfs.control import settings_files as text
from livedumpfs.control.by_id import StepsById
from livedumpfs.control.caller import Access, Caller
from livedumpfs.control.caller_target import open_for
from livedumpfs.control.last_errors import LastErrors
from livedumpfs.control.machine_files import CONSOLE, machine_readers
from livedumpfs.control.metrics import metrics
from livedumpfs.control.one_step import OneStep
from livedumpfs.control.physical_memory import PhysicalMemory
from livedumpfs.control.requests import InitRequest, typed_init, typed_sweep, untyped_init
from livedumpfs.control.settings_files import Settings
from livedumpfs.control.snapshot_tree import Shown, SnapshotTree
from livedumpfs.control.tally import Tally
from livedumpfs.dump import DumpSettings, LiveDump
from livedumpfs.errors import (
    HostError,
    StateError,
    TargetError,
    UsageError,
    os_cause,
)
from livedumpfs.machines import Machine, TakesTyping
from livedumpfs.targets import Target
from livedumpfs.units import PAGE_SIZE

DEVICE = "livedump"
MEMORY = "mem"
_PREFIX = "control/"
_IDLE = (State.UNDEFINED, State.UNINIT)
_FINISH_POLL = 0.5
"""Seconds after which a waiting SWEEP looks whether its dump is still there."""
_LONGEST_VALUE = abi.PATH_MAX
"""Bytes that are written to a file of control/ at the most, the newline included."""


class Control:
    """One machine and its dump.

    A method that fails raises an OSError with an errno. Its sentence can then be read from
    control/error by the same task, and by others of its user when it was their last.
    """

    def __init__(
        self,
        machine: Machine,
        dump: LiveDump,
        *,
        access: Access | None = None,
        settings: DumpSettings | None = None,
        output: str = "",
    ) -> None:
        self.machine = machine
        self.dump = dump
        self.access = access or Access()
        self._settings = text.change(Settings(settings or DumpSettings()), "output", output)
        self._taken = self._settings
        self._memory = PhysicalMemory(machine.memory_map, machine.arena.read)
        self._snapshot = SnapshotTree(dump)
        self._one_step = OneStep(dump)
        self._tally = Tally()
        dump.observers.append(self._tally.note)
        self._generation = 0
        self._release_with: tuple[int, bytes] | None = None
        """RELEASE of the dump with that id, when that open file is closed."""
        self._closing = False
        self._errors = LastErrors()
        self._by_id = StepsById(dump, self._one_step, self.access)
        self._readers = self._make_readers()
        self._ioctls: dict[int, Callable[[int, bytes, Caller, int], bytes]] = {
            abi.START: lambda *_: self._start(),
            abi.SWEEP: lambda *_: self._sweep(wait=True),
            abi.RELEASE: lambda _, __, caller, ___: self._release(caller.named),
            abi.INIT: self._ioctl_init,
            abi.INIT_TYPED: lambda _, payload, caller, handle: self._init_typed(
                payload, caller, handle
            ),
            abi.SWEEP_TYPED: lambda _, payload, *__: self._sweep(wait=typed_sweep(payload)),
            abi.STATUS: lambda *_: bytes(self._status()),
            abi.INIT_ID: self._ioctl_init_id,
            abi.STATUS_ID: lambda _, payload, *__: self._by_id.status(payload, self._status),
            abi.RELEASE_ID: lambda _, payload, who, __: self._by_id.release(payload, who.named),
            **{
                number: lambda _, payload, *__, step=step: step(payload)
                for number, step in self._by_id.steps.items()
            },
        }

    def _make_readers(self) -> dict[str, Callable[[Caller], str | bytes]]:
        machine, dump = self.machine, self.dump
        readers: dict[str, Callable[[Caller], str | bytes]] = {
            DEVICE: lambda _: report.status_line(self.state, dump),
            "stats.json": lambda _: report.stats(self.state, dump, self._shown(), machine),
            "metrics": lambda _: self.metrics(),
            **machine_readers(machine),
            "control/state": lambda _: report.state_text(self.state),
            "control/failed": lambda _: f"{self._lost_pages()}\n",
            "control/id": lambda _: f"{dump.dump_id.hex()}\n",
            "control/bases": lambda _: "".join(f"{one.hex()}\n" for one in dump.bases),
            "control/error": self._error_of,
            "control/pages": lambda _: dump.pages() + b"\n",
        }
        for name in text.names(type(self._settings.dump)):
            readers[_PREFIX + name] = lambda _, name=name: text.show(self._settings, name)  # type: ignore[misc]
        return readers

    def _error_of(self, caller: Caller) -> str:
        """Root and the host's user see those of all users: a sentence can hold a path, or
        whatever a wrong pointer led to."""
        return self._errors.of(caller, everybodys=self.access.sees_all(caller))

    # ------------------------------------------------------------------- files

    def names(self) -> tuple[str, ...]:
        """All files but those of snapshot/, by path from the mount's root, without a leading slash,
        always in the same order."""
        return (*self._readers, MEMORY)

    def snapshot(self) -> Shown | None:
        """snapshot/ now. An open file of it stays that dump's: ENODATA from its RELEASE on."""
        return self._snapshot.shown()

    def writable(self, name: str) -> bool:
        """Whether the file may be opened for writing."""
        return (
            name == "control/state"
            or (name == CONSOLE and isinstance(self.machine, TakesTyping))
            or name.removeprefix(_PREFIX) in text.names(type(self._settings.dump))
        )

    @property
    def memory(self) -> PhysicalMemory:
        """What `mem` shows."""
        return self._memory

    def read(self, name: str, caller: Caller, *, keep_error: bool = True) -> bytes:
        """A whole small file. FileNotFoundError: there is none of that name. `keep_error`: for
        control/error, when it fails."""
        with self._errors.recording(caller, keep=keep_error and name != "control/error"):
            reader = self._readers.get(name)
            if reader is None:
                raise FileNotFoundError(errno.ENOENT, os_cause(errno.ENOENT), name)
            found = reader(caller)
        return found.encode(errors="surrogateescape") if isinstance(found, str) else found

    def read_memory(self, offset: int, length: int) -> bytes:
        """Live memory at physical address `offset`; holes of the map are zeros."""
        return self._memory.pread(offset, length)

    def write(self, name: str, data: bytes, caller: Caller) -> None:
        """What a write of the whole value does. EBUSY: settings of a dump that exists."""
        with self._errors.recording(caller):
            self.access.check(caller)
            if not self.writable(name):
                raise PermissionError(errno.EACCES, os_cause(errno.EACCES), name)
            if len(data) > _LONGEST_VALUE:
                raise UsageError(f"{name}: the value is too long", errno=errno.EINVAL)
            if name == CONSOLE and isinstance(self.machine, TakesTyping):
                self.machine.type(data)
                return
            value = data.decode(errors="surrogateescape").removesuffix("\n")
            if name == "control/state":
                self._write_state(value, caller)
            else:
                self._write_setting(name.removeprefix(_PREFIX), value)

    def truncate(self, name: str, caller: Caller) -> None:
        """What open(2) with O_TRUNC does, as a shell's `>`, and truncate(2) to 0: a setting that
        may be empty is so from now on; any other keeps its value until one is written. EBUSY:
        settings of a dump that exists."""
        with self._errors.recording(caller):
            self.access.check(caller)
            if not self.writable(name):
                raise PermissionError(errno.EACCES, os_cause(errno.EACCES), name)
            setting = name.removeprefix(_PREFIX)
            if setting in text.names() and text.may_be_empty(self._settings, setting):
                self._write_setting(setting, "")

    def _write_setting(self, name: str, value: str) -> None:
        with self._one_step(f"control/{name}"):
            if self.state not in _IDLE:
                raise StateError(
                    f"control/{name} cannot be changed while there is a dump",
                    errno=errno.EBUSY,
                    hint="release it first",
                )
            self._settings = text.change(self._settings, name, value)

    def _write_state(self, value: str, caller: Caller) -> None:
        """SUSE's way to take a step. SWEEP only begins; FINISH waits for the end."""
        steps: dict[str, Callable[[], object]] = {
            "1": lambda: self._init(InitRequest(self._settings), caller),
            "2": self._start,
            "3": lambda: self._sweep(wait=False),
            "4": self._finish,
            "5": lambda: self._release(caller.named),
        }
        step = steps.get(value.strip())
        if step is None:
            raise UsageError(
                f"control/state: not a state from 1 to 5: {value!r}", errno=errno.EINVAL
            )
        step()

    # ------------------------------------------------------------------ ioctls

    def ioctl(
        self, command: int, argument: int, payload: bytes, caller: Caller, handle: int
    ) -> bytes:
        """Carry out an ioctl. `argument`: the caller's pointer; `payload`: what came by value;
        `handle`: the open file. What goes back by value; ENOTTY: no such command."""
        step = self._ioctls.get(command)
        if step is None:
            # Not worth a sentence: every open() of a terminal-minded program asks.
            raise OSError(errno.ENOTTY, os_cause(errno.ENOTTY))
        with self._errors.recording(caller):
            if command not in (abi.STATUS, abi.STATUS_ID):
                self.access.check(caller)
            return step(argument, payload, caller, handle) or b""

    def _ioctl_init(self, argument: int, payload: bytes, caller: Caller, handle: int) -> bytes:
        if not argument:
            return self._init(InitRequest(self._settings), caller)
        self._expect_no_dump()
        return self._init(untyped_init(self._settings, caller, argument), caller)

    def _init_typed(
        self,
        payload: bytes,
        caller: Caller,
        handle: int,
        dump_id: bytes | None = None,
        since: bytes = b"",
    ) -> bytes:
        request = typed_init(self._settings, payload)
        on_close = handle if request.release_on_close else None
        return self._init(request, caller, on_close, dump_id, since)

    def _ioctl_init_id(self, argument: int, payload: bytes, caller: Caller, handle: int) -> bytes:
        return self._by_id.init(
            payload, lambda init, *ids: self._init_typed(init, caller, handle, *ids)
        )

    def closed(self, handle: int) -> None:
        """The open file is closed: release the dump that was made to last as long as it."""
        if self._release_with and self._release_with[0] == handle:
            with suppress(StateError):  # there is another dump now
                self.dump.release("as its client closed it", dump_id=self._release_with[1])

    def close(self) -> None:
        """The host ends: no more steps, and the dump is released."""
        self._closing = True
        self.dump.release("as the host ended")

    # ------------------------------------------------------------------- steps

    @property
    def state(self) -> State:
        """In SUSE's numbers: UNDEFINED before the first INIT, UNINIT after a RELEASE."""
        name = self.dump.state.name
        if name == "UNINIT" and self._generation == 0:
            return State.UNDEFINED
        return State[name]

    def _expect_no_dump(self) -> None:
        if self._closing:
            raise HostError("INIT: the host is ending", errno=errno.ESHUTDOWN)
        if self.state not in _IDLE:
            raise StateError(
                f"INIT: there is a dump already, in state {self.state.name}",
                errno=errno.EBUSY,
                hint="release it first",
            )

    def _init(
        self,
        request: InitRequest,
        caller: Caller,
        on_close: int | None = None,
        dump_id: bytes | None = None,
        since: bytes = b"",
    ) -> bytes:
        with self._one_step("INIT"):
            self._expect_no_dump()
            settings = replace(request.settings, dump=request.settings.dump.fitted())
            self.dump.expect_init(settings.dump)
            target, sidecar = self._open_in_time(settings, caller, request.memory_only)
            named = settings.dump.sidecar
            taken = replace(settings.dump, sidecar=sidecar or named)
            self.dump.init(target, taken, dump_id=dump_id, since=since)
            self._by_id.began()
            self._generation += 1
            self._taken = replace(settings, dump=replace(self.dump.settings, sidecar=named))
            self._release_with = None if on_close is None else (on_close, self.dump.dump_id)
            # Force is for one dump: the next target has to be looked at again.
            kept = self._settings
            self._settings = replace(kept, dump=replace(kept.dump, force=False))
        if self._closing:
            self.dump.release()
            raise HostError("INIT: the host is ending", errno=errno.ESHUTDOWN)
        return b""

    def _open_in_time(
        self, settings: Settings, caller: Caller, memory_only: bool
    ) -> tuple[Target | None, Target | None]:
        """What lies on a target is looked at when it is opened, and that may hang."""
        self.dump.errands.expect_none()

        def undo(opened: tuple[Target | None, Target | None]) -> None:
            for one in opened:
                if one:
                    one.abandon()

        return self.dump.errands.run(
            settings.output,
            lambda: self._open(settings, caller, memory_only),
            undo,
            settings.dump.init_deadline,
        )

    def _open(
        self, settings: Settings, caller: Caller, memory_only: bool
    ) -> tuple[Target | None, Target | None]:
        if memory_only or settings.type == "none":
            return None, None
        if not settings.output:
            raise UsageError(
                "INIT: no target is set",
                errno=errno.EINVAL,
                hint="write its path to control/output",
            )
        return open_for(caller, settings)

    def _start(self) -> bytes:
        with self._one_step("START"):
            self.dump.start()
        return b""

    def _sweep(self, *, wait: bool) -> bytes:
        with self._one_step("SWEEP"):
            self.dump.sweep()
        return self._finish() if wait else b""

    def _finish(self) -> bytes:
        """Wait for the seal. ECANCELED: released meanwhile; or the errno of the dump's failure."""
        generation = self._generation
        if self.state not in (State.SWEEP, State.FINISH):
            raise StateError(
                f"FINISH: no sweep is under way, the state is {self.state.name}",
                errno=errno.EINVAL,
                hint=self.dump.expired or "",
            )
        while self.state is not State.FINISH:
            if self.state is not State.SWEEP or generation != self._generation:
                raise StateError("the dump was released meanwhile", errno=errno.ECANCELED)
            self.dump.wait(_FINISH_POLL)
        if generation != self._generation:
            raise StateError("the dump was released meanwhile", errno=errno.ECANCELED)
        if self.dump.failure:
            code = self.dump.counters().failure.error or errno.EIO
            raise TargetError(self.dump.failure, errno=code)
        return b""

    def _release(self, by: str) -> bytes:
        self.dump.release(by)
        return b""

    # ------------------------------------------------------------------ reports

    def metrics(self) -> bytes:
        """What a scrape gets."""
        return metrics(self.state, self.dump, self._tally.look())

    def _shown(self) -> Settings:
        return self._settings if self.state in _IDLE else self._taken

    def _status(self) -> abi.Status:
        return report.status_of(self.state, self.dump, self._taken)

    def _lost_pages(self) -> int:
        counters = self.dump.counters()
        return counters.lost * counters.granule_size // PAGE_SIZE
