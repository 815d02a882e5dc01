# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine in this process: Unicorn runs guest code on an arena.

The vCPUs are threads of the C core (native/vcpu/); no Python runs on them. Each has a
Unicorn instance of its own, so a locked instruction is not atomic against another vCPU: guests give
each vCPU its own memory to write, as the built-in one does.
"""

from __future__ import annotations

import errno
import importlib.util
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from livedumpfs.closing import Closing
from livedumpfs.core.arena import Arena
from livedumpfs.core.capi import CData, check, ffi, lib
from livedumpfs.errors import MachineError, UsageError
from livedumpfs.formats import Registers
from livedumpfs.machines import boot
from livedumpfs.machines.guest_image import EM_X86_64, GuestImage
from livedumpfs.machines.ledger_block import ledger_phases
from livedumpfs.machines.machine import InProcess, PhysicalRange
from livedumpfs.units import PAGE_SIZE, format_size, parse_size

BUILT_IN_GUEST = Path(__file__).resolve().parent.parent / "guest" / "ledger.elf"
"""The ledger program, with symbols; for debuggers that look into its dumps."""

RAM_MIN = 4 << 20
LOW_RAM = 3 << 30
"""RAM beyond this begins at 4 GiB, as on a PC."""
HIGH_START = 4 << 30

# Read when they are used, so a program that always needs others sets them once.
STOP_SECONDS = 5.0
QUIESCE_SECONDS = 1.0

_WHY_SIZE = 512

_STATES = {
    lib.LDFS_VCPU_NEW: "new",
    lib.LDFS_VCPU_RUNNING: "running",
    lib.LDFS_VCPU_IDLE: "idle",
    lib.LDFS_VCPU_HALTED: "halted",
    lib.LDFS_VCPU_FAILED: "failed",
    lib.LDFS_VCPU_ENDED: "stopped",
}
_ACCESSES = {19: "read of", 20: "write to", 21: "jump to"}
_EXCEPTIONS = {
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
_REGISTER_NAMES = tuple(name for name, _ in ffi.typeof("ldfs_registers").fields)


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


def memory_map_of(ram_size: int, low_ram: int = LOW_RAM) -> tuple[PhysicalRange, ...]:
    """One range from 0, or two with the hole of a PC. UsageError: sizes that make no sense."""
    if ram_size % PAGE_SIZE or ram_size < RAM_MIN:
        raise UsageError(
            f"RAM size is {ram_size} bytes, not a multiple of {PAGE_SIZE} from"
            f" {format_size(RAM_MIN)} up"
        )
    if low_ram % PAGE_SIZE or not RAM_MIN <= low_ram <= HIGH_START:
        raise UsageError(f"low RAM is {low_ram} bytes, not whole pages in [4 MiB, 4 GiB]")
    if ram_size <= low_ram:
        return (PhysicalRange(0, ram_size, 0),)
    return (
        PhysicalRange(0, low_ram, 0),
        PhysicalRange(HIGH_START, ram_size - low_ram, low_ram),
    )


class UnicornMachine(InProcess, Closing):
    """x86-64 vCPUs on an arena of their own. A context manager that starts it and closes it.

    ram_size: bytes or "512MiB", at least 4 MiB. vcpus: 1 to 4. guest: an ELF64 program
    (guest/boot.h says how it starts); None: the built-in ledger. dirty_share: the share of RAM that
    the ledger writes to, in (0, 1]. rate: its transfers a second and vCPU, 0: as fast as it can.
    seed: of its random choices. low_ram: bytes of RAM from address 0; the rest begins at 4 GiB.

    UsageError: numbers out of range. MachineError: no Unicorn, not enough memory, or a guest that
    is no program for this machine.
    """

    architecture = "x86_64"
    elf_machine = EM_X86_64

    def __init__(
        self,
        ram_size: int | str,
        vcpus: int = 1,
        guest: str | Path | None = None,
        *,
        dirty_share: float = 1.0,
        rate: int = 0,
        seed: int = 1,
        low_ram: int = LOW_RAM,
    ) -> None:
        size = _size_of(ram_size)
        if not 1 <= vcpus <= lib.LDFS_MAX_VCPUS:
            raise UsageError(f"number of vCPUs is {vcpus}, not 1 to {lib.LDFS_MAX_VCPUS}")
        self.name = "guest" if guest else "ledger"
        self.guest_path = Path(guest) if guest else BUILT_IN_GUEST
        self.vcpus = vcpus
        self.memory_map: Sequence[PhysicalRange] = memory_map_of(size, low_ram)
        self.dirty_share, self.rate, self.seed = dirty_share, rate, seed
        params = self._boot_params(size)
        if not guest and not BUILT_IN_GUEST.exists():
            raise MachineError(
                f"the built-in guest {BUILT_IN_GUEST} is not there",
                errno=errno.ENOENT,
                hint="`make guest` builds it in a source tree; `--guest FILE` runs another program",
            )
        image = GuestImage.load(self.guest_path)
        image.check_fits(self.memory_map)
        self._lock = threading.Lock()
        self._closed = False
        self.arena = Arena(size)
        try:
            self._load(image, params)
            self._machine = self._create(image.entry)
        except BaseException:
            self.arena.close()
            raise
        self._finalizer = weakref.finalize(self, _end, self._machine, self.arena)

    # ------------------------------------------------------------------ making one

    def _boot_params(self, size: int) -> list[boot.BootParams]:
        ranges = tuple((r.start, r.size) for r in self.memory_map)
        share = boot.share_of(self.dirty_share)
        burst, ticks = boot.pace_of(self.rate)
        seeds = [(self.seed + i * 0x9E3779B97F4A7C15) % (1 << 64) for i in range(self.vcpus)]
        return [
            boot.BootParams(i, self.vcpus, size, ranges, seeds[i], share, burst, ticks)
            for i in range(self.vcpus)
        ]

    def _load(self, image: GuestImage, params: Sequence[boot.BootParams]) -> None:
        # The arena is all holes: the zeros behind a segment's data are there already.
        for segment in image.segments:
            self._write(segment.address, segment.data)
        for p in params:
            self._write(boot.address(p.vcpu), p.pack())

    def _write(self, address: int, data: bytes) -> None:
        """Before start only. The bytes lie in one range."""
        r = next(r for r in self.memory_map if r.start <= address < r.end)
        offset = r.arena_offset + address - r.start
        self.arena.live[offset : offset + len(data)] = memoryview(data)

    def _create(self, entry: int) -> CData:
        out, why = ffi.new("ldfs_machine **"), ffi.new("char[]", _WHY_SIZE)
        ranges = [(r.start, r.size, r.arena_offset) for r in self.memory_map]
        rc = lib.ldfs_machine_create(
            _library().encode(),
            lib.ldfs_arena_live(self.arena._handle),
            ffi.new("ldfs_ram_range[]", ranges),
            len(ranges),
            self.vcpus,
            out,
            why,
            _WHY_SIZE,
        )
        cause = ffi.string(why).decode(errors="replace")
        check(rc, "make a Unicorn machine", MachineError, cause)
        for i in range(self.vcpus):
            registers = ffi.new("ldfs_registers *", boot.first_registers(i, entry))
            lib.ldfs_machine_set_registers(out[0], i, registers)
        return out[0]

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Let the vCPUs run. MachineError: started before (EBUSY), or no thread (EAGAIN)."""
        check(lib.ldfs_machine_start(self._handle), "start the machine", MachineError)

    def stop(self, timeout: float | None = None) -> None:
        """End the vCPUs for good; memory and registers can still be read.

        MachineError (ETIMEDOUT): after `timeout` seconds (None: STOP_SECONDS) one still waits in a
        fault, e.g. for a slot of a dump that must be released first; it may be called again.
        """
        timeout = STOP_SECONDS if timeout is None else timeout
        rc = lib.ldfs_machine_stop(self._handle, _deadline(timeout))
        hint = "release the dump first; the memory stays mapped"
        check(rc, f"stop the vCPUs within {timeout:g} s", MachineError, hint)

    def close(self) -> None:
        """Stop the vCPUs, then free them and the arena. MachineError: as stop; nothing is freed."""
        with self._lock:
            if not self._closed:
                self.stop()
                self._finalizer.detach()
                check(lib.ldfs_machine_destroy(self._machine), "free the machine", MachineError)
                self._closed = True
            self.arena.close()

    @property
    def _handle(self) -> CData:
        if self._closed:
            raise MachineError("the machine is closed", errno=errno.ESHUTDOWN)
        return self._machine

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
        out = ffi.new("ldfs_registers *")
        result: list[Registers] = []
        for i in range(self.vcpus):
            rc = lib.ldfs_machine_registers(self._handle, i, out, _deadline(timeout))
            check(rc, f"read the registers of vCPU {i}", MachineError)
            result.append(_mapping(out))
        return result

    def snapshot_registers(self) -> list[Registers]:
        """Registers of the last START. MachineError (ENODATA): there was none."""
        out = ffi.new("ldfs_registers *")
        result: list[Registers] = []
        for i in range(self.vcpus):
            rc = lib.ldfs_machine_snapshot(self._handle, i, out)
            check(rc, f"give the registers of vCPU {i} at START", MachineError)
            result.append(_mapping(out))
        return result

    def console(self) -> bytes:
        """The newest 64 KiB that the guest printed."""
        size = lib.LDFS_CONSOLE_SIZE + 256 * self.vcpus
        out = ffi.new("uint8_t[]", size)
        length = lib.ldfs_machine_console(self._handle, out, size)
        return bytes(ffi.buffer(out, length))

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
            name = _EXCEPTIONS.get(status.exception, "interrupt")
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

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Until the ledger has filled its accounts. MachineError: it failed, or ETIMEDOUT.

        A guest of the user's own is ready at once.
        """
        end = time.monotonic() + timeout
        while self.name == "ledger" and not all(ledger_phases(self.read_physical)):
            lines = "; ".join(map(str, self.status()))
            if self.state not in ("running", "new"):
                raise MachineError(f"the guest ended before it was ready: {lines}", errno=errno.EIO)
            if time.monotonic() > end:
                cause = f"the guest is not ready after {timeout:g} s: {lines}"
                raise MachineError(cause, errno=errno.ETIMEDOUT)
            time.sleep(0.005)

    def read_physical(self, address: int, length: int) -> bytes:
        """Live memory at a physical address. ValueError: not RAM, or across the hole."""
        for r in self.memory_map:
            if r.start <= address and address + length <= r.end:
                return self.arena.read(r.arena_offset + address - r.start, length)
        raise ValueError(f"[{address:#x}, {address + length:#x}) is not RAM")

    def metadata(self) -> dict[str, object]:
        """What the dump says of the machine."""
        guest: dict[str, object] = {}
        if self.name == "ledger":
            guest = {"dirty_share": self.dirty_share, "rate": self.rate, "seed": self.seed}
        return {
            "name": self.name,
            "guest": "built-in ledger" if self.name == "ledger" else str(self.guest_path),
            "vcpus": self.vcpus,
            "ram_size": self.arena.size,
            **guest,
        }


# Machines whose vCPUs did not end when they were told to: their memory stays mapped.
_abandoned: list[tuple[CData, Arena]] = []


def _end(machine: CData, arena: Arena) -> None:
    """What happens to a machine that was never closed, at the latest when the program ends."""
    if lib.ldfs_machine_stop(machine, _deadline(STOP_SECONDS)) == 0:
        lib.ldfs_machine_destroy(machine)
    else:
        _abandoned.append((machine, arena))


def _size_of(ram_size: int | str) -> int:
    try:
        return parse_size(ram_size)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _library() -> str:
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


def _mapping(registers: CData) -> Registers:
    return {name: getattr(registers, name) for name in _REGISTER_NAMES}
