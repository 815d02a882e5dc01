# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machines have in common whose vCPUs are emulated in this process, by Unicorn.

The vCPUs are threads of the C core (native/vcpu/); no Python runs on them.
"""

from __future__ import annotations

import errno
import importlib.util
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Self

from livedumpfs.closing import Closing
from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import CData, check, ffi, lib
from livedumpfs.errors import MachineError
from livedumpfs.formats import Registers
from livedumpfs.machines.machine import InProcess, PhysicalRange

# Read when they are used, so a program that always needs others sets them once.
STOP_SECONDS = 5.0
QUIESCE_SECONDS = 1.0

WHY_SIZE = 512
"""Bytes that the core has for a reason."""

_STATES = {
    lib.LDFS_VCPU_NEW: "new",
    lib.LDFS_VCPU_RUNNING: "running",
    lib.LDFS_VCPU_IDLE: "idle",
    lib.LDFS_VCPU_HALTED: "halted",
    lib.LDFS_VCPU_FAILED: "failed",
    lib.LDFS_VCPU_ENDED: "stopped",
}
_ACCESSES = {19: "read of", 20: "write to", 21: "jump to"}
_X86_EXCEPTIONS: Final = {
    0: "divide error",
    1: "debug",
    3: "breakpoint",
    4: "overflow",
    6: "invalid opcode",
    8: "double fault",
    12: "stack fault",
    13: "general protection",
    14: "page fault",
    16: "floating point",
    17: "alignment check",
    19: "SIMD floating point",
}


@dataclass(frozen=True)
class VcpuStatus:
    """How one vCPU is: `state` is new, running, idle, halted, failed or stopped."""

    index: int
    state: str
    parked: bool
    """A pause holds it."""
    pc: int | None
    """Where it failed or halted; None while it runs."""
    reason: str
    """Why it failed, else empty."""

    def __str__(self) -> str:
        text = f"vCPU {self.index}: {self.state}"
        if self.pc is not None:
            text += f" at {self.pc:#x}"
        return f"{text}: {self.reason}" if self.reason else text


@dataclass(frozen=True)
class EmulatorCore:
    """A machine of the C core, and the functions that begin and end it."""

    machine: CData
    """ldfs_machine *"""
    owner: CData
    """What the functions take."""
    start: CData
    stop: CData
    destroy: CData
    kept: object = None
    """What the machine uses until it is destroyed."""


class EmulatedMachine(InProcess, Closing):
    """A subclass makes the memory, and calls _adopt with the machine on it. A context manager that
    starts it and closes it."""

    name: str
    vcpus: int
    memory_map: Sequence[PhysicalRange]
    kept_registers: ClassVar[str]
    """The member of ldfs_any_registers that its vCPUs have."""
    exceptions: ClassVar[Mapping[int, str]] = _X86_EXCEPTIONS
    """Their names, by number."""

    def _adopt(self, arena: Arena, core: EmulatorCore) -> None:
        self.arena = arena
        self._core = core
        self._lock = threading.Lock()
        self._closed = False
        self._finalizer = weakref.finalize(self, _end, core, arena)

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Let the vCPUs run. MachineError: started before (EBUSY), or no thread (EAGAIN)."""
        check(self._core.start(self._owner), "start the machine", MachineError)

    def stop(self, timeout: float | None = None) -> None:
        """End the vCPUs for good; memory and registers can still be read.

        MachineError (ETIMEDOUT): after `timeout` seconds (None: STOP_SECONDS) one still waits in a
        fault, e.g. for a slot of a dump that must be released first; it may be called again.
        """
        timeout = STOP_SECONDS if timeout is None else timeout
        rc = self._core.stop(self._owner, _deadline(timeout))
        hint = "release the dump first; the memory stays mapped"
        check(rc, f"stop the vCPUs within {timeout:g} s", MachineError, hint)

    def close(self) -> None:
        """Stop the vCPUs, then free them and the arena. MachineError: as stop; nothing is freed."""
        with self._lock:
            if not self._closed:
                self.stop()
                self._finalizer.detach()
                check(self._core.destroy(self._core.owner), "free the machine", MachineError)
                self._closed = True
            self.arena.close()

    @property
    def _handle(self) -> CData:
        self._expect_open()
        return self._core.machine

    @property
    def _owner(self) -> CData:
        self._expect_open()
        return self._core.owner

    def _expect_open(self) -> None:
        if self._closed:
            raise MachineError("the machine is closed", errno=errno.ESHUTDOWN)

    # ------------------------------------------------------------------ holding it

    def quiesce_ops(self) -> CData:
        """For ldfs_dump_start: the pause is C only."""
        return lib.ldfs_machine_ops(self._handle)

    def quiesce(self, timeout: float | None = None) -> None:
        """Hold all vCPUs between two instructions, within `timeout` seconds (None:
        QUIESCE_SECONDS); nests. MachineError (ETIMEDOUT): they run on."""
        timeout = QUIESCE_SECONDS if timeout is None else timeout
        rc = lib.ldfs_machine_quiesce(self._handle, _deadline(timeout))
        check(rc, f"hold the vCPUs within {timeout:g} s", MachineError)

    def resume(self) -> None:
        """Undo one quiesce. MachineError (EINVAL): there was none."""
        check(lib.ldfs_machine_resume(self._handle), "resume the vCPUs", MachineError)

    # ------------------------------------------------------------------ looking into it

    def registers(self, timeout: float | None = None) -> list[Registers]:
        """Live registers. Each vCPU is held for the few microseconds of its own turn, which must
        come within `timeout` seconds (None: QUIESCE_SECONDS)."""
        timeout = QUIESCE_SECONDS if timeout is None else timeout
        out = ffi.new("ldfs_any_registers *")
        result: list[Registers] = []
        for i in range(self.vcpus):
            rc = lib.ldfs_machine_registers(self._handle, i, out, _deadline(timeout))
            check(rc, f"read the registers of vCPU {i}", MachineError)
            result.append(self._mapping(out))
        return result

    def snapshot_registers(self) -> list[Registers]:
        """Registers of the last START. MachineError (ENODATA): there was none."""
        out = ffi.new("ldfs_any_registers *")
        result: list[Registers] = []
        for i in range(self.vcpus):
            rc = lib.ldfs_machine_snapshot(self._handle, i, out)
            check(rc, f"give the registers of vCPU {i} at START", MachineError)
            result.append(self._mapping(out))
        return result

    def _mapping(self, registers: CData) -> Registers:
        kept = getattr(registers, self.kept_registers)
        return {name: getattr(kept, name) for name, _ in ffi.typeof(kept).fields}

    def console(self) -> bytes:
        """The newest 64 KiB that the guest printed."""
        return self.console_stream()[1]

    def console_stream(self) -> tuple[int, bytes]:
        """(bytes that the guest has printed ever, the newest 64 KiB of them)."""
        size = lib.LDFS_CONSOLE_SIZE + 256 * self.vcpus
        out, end = ffi.new("uint8_t[]", size), ffi.new("uint64_t *")
        length = lib.ldfs_machine_console(self._handle, out, size, end)
        return end[0], bytes(ffi.buffer(out, length))

    def status(self) -> list[VcpuStatus]:
        """How each vCPU is."""
        return [self._status(i) for i in range(self.vcpus)]

    def _status(self, index: int) -> VcpuStatus:
        out = ffi.new("ldfs_vcpu_status *")
        check(lib.ldfs_machine_status(self._handle, index, out), "ask a vCPU", MachineError)
        failed = out.state == lib.LDFS_VCPU_FAILED
        return VcpuStatus(
            index,
            _STATES[out.state],
            bool(out.parked),
            out.pc if failed or out.state == lib.LDFS_VCPU_HALTED else None,
            self._reason(out) if failed else "",
        )

    def _reason(self, status: CData) -> str:
        if status.exception >= 0:
            name = self.exceptions.get(status.exception, "interrupt")
            return f"CPU exception {status.exception} ({name})"
        if status.error == 0:
            return "emulation ended without a cause"
        if status.access in _ACCESSES:
            return f"{_ACCESSES[status.access]} {status.address:#x}, where there is no RAM"
        text: bytes = ffi.string(lib.ldfs_machine_error_text(self._handle, status.error))
        return text.decode(errors="replace")

    @property
    def state(self) -> str:
        """Of the whole machine: failed if a vCPU is, running while one runs, else what they are."""
        states = {s.state for s in self.status()}
        for state in ("failed", "running", "idle", "new", "halted"):
            if state in states:
                return "running" if state == "idle" else state
        return "stopped"

    def read_physical(self, address: int, length: int) -> bytes:
        """Live memory at a physical address. ValueError: not RAM, or across the hole."""
        for r in self.memory_map:
            if r.start <= address and address + length <= r.end:
                return self.arena.read(r.arena_offset + address - r.start, length)
        raise ValueError(f"[{address:#x}, {address + length:#x}) is not RAM")


# Machines whose vCPUs did not end when they were told to: their memory stays mapped.
_abandoned: list[tuple[EmulatorCore, Arena]] = []


def _end(core: EmulatorCore, arena: Arena) -> None:
    """What happens to a machine that was never closed, at the latest when the program ends."""
    if core.stop(core.owner, _deadline(STOP_SECONDS)) == 0:
        core.destroy(core.owner)
    else:
        _abandoned.append((core, arena))


def unicorn_library() -> str:
    """Path of the libunicorn that the PyPI package brings."""
    spec = importlib.util.find_spec("unicorn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder, "lib").glob("libunicorn.so*")):
            return str(path)
    raise MachineError(
        "cannot find libunicorn", errno=errno.ELIBACC, hint="install the package unicorn"
    )


def _deadline(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * 1e9)
