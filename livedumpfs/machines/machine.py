# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine: what a dump wants of every machine. What only some can do is in capabilities.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from livedumpfs.core.arena import Arena
from livedumpfs.core.array_info import ArrayInfo
from livedumpfs.core.capi import CData
from livedumpfs.errors import MachineError
from livedumpfs.formats import Registers
from livedumpfs.formats.note import Note
from livedumpfs.machines.signals import SIGNALS, can_take_sigbus, check_signals

ReadSnapshot = Callable[[int, int], bytes]
"""Bytes [offset, offset+length) of the arena at the snapshot instant."""


@dataclass(frozen=True)
class PhysicalRange:
    """Physical addresses [start, start + size), in bytes, lie at `arena_offset` of the arena."""

    start: int
    size: int
    arena_offset: int

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.start + self.size


class Memory(Protocol):
    """What is wanted of a machine's memory, wherever it is."""

    @property
    def size(self) -> int:
        """Bytes, whole pages."""

    @property
    def named(self) -> Sequence[ArrayInfo]:
        """Its named arrays."""

    def read(self, offset: int, length: int) -> bytes:
        """Live bytes [offset, offset+length)."""


class InProcess:
    """What machines have in common whose memory is in this process, and whose programs are flat."""

    backends: Sequence[str] = ("sigsegv", "uffd", "sigbus")
    identity_mapped = True
    arena: Arena

    @property
    def page_size(self) -> int:
        """See capabilities.HasPages."""
        return self.arena.page_size

    def note_room(self, vcpus: int) -> int:
        """None."""
        del vcpus
        return 0

    def snapshot_notes(self, read: ReadSnapshot) -> Sequence[Note]:
        """None."""
        del read
        return ()

    def ended(self) -> bool:
        """Never by itself."""
        return False

    def check_start(self, backend: str = "sigsegv") -> None:
        """MachineError: START with that backend would be refused now. See
        capabilities.ChecksFirst."""
        if backend in SIGNALS:
            check_signals(backend)

    def best_backend(self) -> str:
        """See capabilities.ChoosesBackend: sigsegv measures best (docs/performance.md, "Backends").
        Waits for seconds while a thread blocks SIGSEGV."""
        try:
            check_signals("sigsegv")
        except MachineError:
            return "auto" if can_take_sigbus() else "sigsegv"
        return "sigsegv"


class Machine(Protocol):
    """An arena whose writers can be held."""

    @property
    def name(self) -> str:
        """Kind of machine, e.g. "ledger"."""

    @property
    def arena(self) -> Memory:
        """The machine's memory; an Arena where it is in this process."""

    @property
    def architecture(self) -> str:
        """As `uname -m` says it, e.g. "x86_64"."""

    @property
    def elf_machine(self) -> int:
        """e_machine of an ELF file for it."""

    @property
    def memory_map(self) -> Sequence[PhysicalRange]:
        """Sorted by start; covers the arena exactly."""

    @property
    def vcpus(self) -> int:
        """vCPUs, each with registers; 0: there are none."""

    @property
    def backends(self) -> Sequence[str]:
        """Ways to notice its stores, "sigsegv", "uffd", "sigbus"; the usual one first, which may be
        "auto"."""

    @property
    def identity_mapped(self) -> bool:
        """Virtual addresses are physical ones."""

    def note_room(self, vcpus: int) -> int:
        """Bytes, a multiple of 4, that a dump of `vcpus` vCPUs needs room for: the longest that
        snapshot_notes of a START with no more vCPUs can be."""

    def quiesce_ops(self) -> CData | None:
        """struct ldfs_quiesce_ops *, valid as long as the machine; None: use quiesce and resume."""

    def quiesce(self) -> None:
        """Return once nothing writes the arena. MachineError (ETIMEDOUT): it runs on."""

    def resume(self) -> None:
        """Undo one quiesce."""

    def registers(self) -> list[Registers]:
        """Live registers, one mapping for each vCPU."""

    def snapshot_registers(self) -> list[Registers]:
        """Registers of the last START. MachineError: there was none."""

    def snapshot_notes(self, read: ReadSnapshot) -> Sequence[Note]:
        """What a dump of the last START says of the machine besides its registers."""

    def console(self) -> bytes:
        """All console output that is still kept."""

    def metadata(self) -> dict[str, object]:
        """JSON types only; what a reader of a dump wants to know of the machine."""

    def start(self) -> None:
        """Let it run."""

    def ended(self) -> bool:
        """It has gone by itself, and will not come back."""

    def close(self) -> None:
        """End the machine and free its memory; may be called twice."""
