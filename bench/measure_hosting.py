# SPDX-License-Identifier: GPL-2.0-or-later
"""The cost of hosting for a guest while no dump runs: our machine compared with bare Unicorn
without a hook.

Two guests: the built-in ledger, which writes to random pages and has a required minimum (a bar),
and a loop that does little but store, four times in each block of code, for which the check before
each block costs most. Bare Unicorn runs them on its own memory from uc_mem_map, with the default
TLB and with the virtual one; ours is compared with the faster of the two.

A rate is per processor time of the vCPUs' threads, not per wall-clock time, so other programs on
the computer matter little. Both guests count their rounds in r15.
"""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import unicorn
from measurement import Bar, Effort, Measurement
from unicorn import x86_const

from livedumpfs.machines import BUILT_IN_GUEST, UnicornMachine, boot
from livedumpfs.machines.guest_image import GuestImage

RAM = 64 << 20
READY_TIMEOUT = 300.0
TURN = 0.3
"""Seconds of wall-clock time of one turn."""
CODE_BUFFER = 64 << 20
"""Bytes of translated code; our machine has the same."""
NOWHERE = 1 << 63
LEAST = 0.90
"""Least share of bare Unicorn's speed."""
STORES = """
	.globl _start
_start:	mov 12(%rdi), %eax
	shl $20, %eax
	lea 0x200000(%rax), %rbx
	xor %ecx, %ecx
1:	mov %r15, (%rbx,%rcx)
	mov %r15, 8(%rbx,%rcx)
	mov %r15, 16(%rbx,%rcx)
	mov %r15, 24(%rbx,%rcx)
	add $64, %ecx
	and $0xfffc0, %ecx
	inc %r15
	jmp 1b
	.section .note.GNU-stack
"""
"""Each vCPU stores to its own MiB: hosted ones share one memory, bare ones have one each."""
TLBS = {"bare": unicorn.UC_TLB_CPU, "bare, virtual TLB": unicorn.UC_TLB_VIRTUAL}
FLOOR = "virtual TLB, empty hook"
"""Bare Unicorn that calls an empty C function before each block: the least cost of a check
there."""


def hook_nothing(uc: Any) -> None:
    """Call abs() before each block, in the place of our vCPUs' check for a request to stop."""
    uclib = unicorn.unicorn_py3.unicorn.uclib
    nothing = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p)
    everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
    hook = ctypes.c_size_t()
    status = uclib.uc_hook_add(
        uc._uch, ctypes.byref(hook), unicorn.UC_HOOK_BLOCK, nothing, None, *everywhere
    )
    if status != unicorn.UC_ERR_OK:
        raise unicorn.UcError(status)


def cpu_seconds(threads: Sequence[int]) -> float:
    """Processor time of these threads."""
    tasks = Path("/proc/self/task")
    return sum(int((tasks / f"{t}/schedstat").read_text().split()[0]) for t in threads) / 1e9


class Runner(Protocol):
    """Runs the guest for one turn; the guest stands still between turns."""

    def turn(self) -> float:
        """Rounds of the guest per second of one vCPU's processor time."""


class Bare:
    """One Unicorn instance for each vCPU, used as in Unicorn's documentation."""

    def __init__(self, guest: Path, vcpus: int, tlb: int, hooked: bool) -> None:
        self._vcpus = [self._open(GuestImage.load(guest), i, vcpus, tlb) for i in range(vcpus)]
        self._pcs = [GuestImage.load(guest).entry] * vcpus
        for uc in self._vcpus if hooked else ():
            hook_nothing(uc)

    def _open(self, image: GuestImage, index: int, vcpus: int, tlb: int) -> Any:
        uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_tcg_buffer_size(CODE_BUFFER)
        uc.ctl_set_tlb_mode(tlb)
        uc.mem_map(0, RAM)
        for segment in image.segments:
            uc.mem_write(segment.address, bytes(segment.data))
        pace = boot.pace_of(0)
        params = boot.BootParams(
            index, vcpus, RAM, ((0, RAM),), index + 1, boot.share_of(1.0), *pace
        )
        uc.mem_write(boot.address(index), params.pack())
        uc.reg_write(x86_const.UC_X86_REG_RDI, boot.address(index))
        uc.reg_write(x86_const.UC_X86_REG_RSP, boot.STACK_TOP - index * boot.STACK_SIZE)
        return uc

    def _run(self, index: int, spent: list[float]) -> None:
        uc, before = self._vcpus[index], time.thread_time()
        uc.emu_start(self._pcs[index], NOWHERE)
        spent.append(time.thread_time() - before)
        self._pcs[index] = uc.reg_read(x86_const.UC_X86_REG_RIP)

    def rounds(self) -> int:
        """Rounds of all vCPUs, which must stand still."""
        return sum(uc.reg_read(x86_const.UC_X86_REG_R15) for uc in self._vcpus)

    def turn(self) -> float:
        """One turn. It ends by uc_emu_stop, which may run an instruction twice, once in
        millions."""
        before, spent = self.rounds(), list[float]()
        threads = [
            threading.Thread(target=self._run, args=(i, spent)) for i in range(len(self._vcpus))
        ]
        for thread in threads:
            thread.start()
        time.sleep(TURN)
        for thread, uc in zip(threads, self._vcpus, strict=True):
            while thread.is_alive():  # a stop that comes before the start has no effect
                uc.emu_stop()
                thread.join(0.01)
        return (self.rounds() - before) / sum(spent)


class Hosted:
    """Our machine, held between turns."""

    def __init__(self, machine: UnicornMachine) -> None:
        self._machine = machine
        tasks = Path("/proc/self/task").iterdir()
        self._threads = [
            int(t.name) for t in tasks if (t / "comm").read_text().startswith("ldfs-vcpu")
        ]
        machine.quiesce(READY_TIMEOUT)

    def _state(self) -> tuple[int, float]:
        rounds = sum(r["r15"] for r in self._machine.registers())
        return rounds, cpu_seconds(self._threads)

    def turn(self) -> float:
        """One turn, between two holds."""
        rounds, spent = self._state()
        self._machine.resume()
        time.sleep(TURN)
        self._machine.quiesce(READY_TIMEOUT)
        rounds_after, spent_after = self._state()
        return (rounds_after - rounds) / (spent_after - spent)

    def stops(self, count: int) -> list[float]:
        """Microseconds until the running vCPUs are held, `count` times."""
        found = []
        for _ in range(count):
            self._machine.resume()
            time.sleep(0.002)
            before = time.perf_counter_ns()
            self._machine.quiesce(READY_TIMEOUT)
            found.append((time.perf_counter_ns() - before) / 1e3)
        return found


@dataclass(frozen=True)
class Guest:
    """A guest program. `path` None: the built-in ledger."""

    name: str
    path: Path | None
    per_round: int
    unit: str

    @contextlib.contextmanager
    def hosted(self, vcpus: int) -> Iterator[Hosted]:
        """Our machine, running, with its accounts filled."""
        with UnicornMachine(RAM, vcpus, guest=self.path) as machine:
            machine.wait_ready(READY_TIMEOUT)
            yield Hosted(machine)
            machine.resume()

    def bare(self, vcpus: int, tlb: int, hooked: bool = False) -> Bare:
        """Bare Unicorn, with its accounts filled: r15 counts from then on."""
        bare = Bare(self.path or BUILT_IN_GUEST, vcpus, tlb, hooked)
        while bare.rounds() == 0:
            bare.turn()
        return bare


def measure(effort: Effort) -> Measurement:
    """Each guest with 1 and 2 vCPUs, all ways in turn."""
    found = Measurement(
        "hosting",
        "Speed of a guest without a dump, per second of a vCPU's processor time",
        ["guest", "vCPUs", *TLBS, FLOOR, "hosted", "of the faster", "floor", "stop p50, p99, max"],
        notes=[
            "hosted: this program's machine; bare: uc_mem_map, no hook; floor: the same share of "
            "bare Unicorn with a hook of an empty C function"
        ],
    )
    with tempfile.TemporaryDirectory(prefix="livedump-bench-") as folder:
        guests = [
            Guest("ledger", None, 1, "transfers"),
            Guest("stores only", assemble(STORES, Path(folder)), 4, "stores"),
        ]
        for guest in guests:
            for vcpus in (1, 2):
                compare(guest, vcpus, effort, found)
    return found


def assemble(source: str, folder: Path) -> Path:
    """Assemble and link a guest program."""
    text, program = folder / "guest.S", folder / "guest.elf"
    text.write_text(source)
    options = ["-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x100000", "-Wl,--build-id=none"]
    subprocess.run(["gcc", *options, "-o", program, text], check=True, timeout=60)
    return program


def compare(guest: Guest, vcpus: int, effort: Effort, found: Measurement) -> None:
    """Add one row. The bar is the median of the ratios of each turn to its neighbours."""
    rates: dict[str, list[float]] = {}
    ways: dict[str, Runner] = {name: guest.bare(vcpus, tlb) for name, tlb in TLBS.items()}
    ways[FLOOR] = guest.bare(vcpus, unicorn.UC_TLB_VIRTUAL, hooked=True)
    with guest.hosted(vcpus) as hosted:
        ways["hosted"] = hosted
        for _ in range(effort.repeats(12, 1)):
            for name, way in ways.items():
                rates.setdefault(name, []).append(way.turn() * guest.per_round)
        stops = sorted(hosted.stops(effort.repeats(200, 50)))
    middle = {name: statistics.median(rates[name]) for name in rates}
    faster = max(TLBS, key=middle.__getitem__)
    ratio, floor = (
        statistics.median(a / b for a, b in zip(rates[way], rates[faster], strict=True))
        for way in ("hosted", FLOOR)
    )
    shown = [f"{middle[name] / 1e6:.3g} M {guest.unit}/s" for name in ways]
    tail = ", ".join(
        f"{us:.0f}" for us in (statistics.median(stops), stops[len(stops) * 99 // 100], stops[-1])
    )
    found.rows.append(
        [guest.name, str(vcpus), *shown, f"{ratio:.2f}", f"{floor:.2f}", f"{tail} us"]
    )
    text = f"hosting {guest.name}, vCPUs: {vcpus}, of bare Unicorn's speed"
    found.bars.append(Bar(text, ratio, LEAST))
    found.samples.append({"guest": guest.name, "vcpus": vcpus, "rates": rates, "stops_us": stops})
