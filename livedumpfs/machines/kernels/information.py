# SPDX-License-Identifier: GPL-2.0-or-later
"""KernelInformation: where in its memory the guest's kernel has put VMCOREINFO. To look through the
memory takes a second for each GiB or two, so it is done at INIT, and the place is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from livedumpfs.machines.kernels.kernel_kind import KernelKind
from livedumpfs.machines.kernels.vmcoreinfo import (
    check_vmcoreinfo,
    find_vmcoreinfo,
    locate_vmcoreinfo,
)
from livedumpfs.machines.kernels.x86_kernel import X86_KERNEL
from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot

_SEARCHES: Final = 2
"""Of one kernel's memory, in vain, at the most."""


class SearchedMemory(Protocol):
    """Memory that can be looked through."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes [offset, offset+length)."""

    def data(self) -> Iterable[tuple[int, int]]:
        """(offset, length) of each range that may hold something other than zeros."""


class KernelInformation:
    """Of one machine. `controls`: as in KernelKind, of each vCPU."""

    def __init__(
        self,
        memory: SearchedMemory,
        memory_map: Sequence[PhysicalRange],
        kind: KernelKind = X86_KERNEL,
    ) -> None:
        self._memory = memory
        self._map = memory_map
        self._kind = kind
        self.place: tuple[int, int] | None = None
        """(arena offset, bytes) of it; None: it was not found."""
        self._uninformed: frozenset[bytes] | None = None
        """INIT found none in all the memory: kernel_tables then."""
        self._searches = 0
        """Of that kernel's memory, in vain."""

    def look(self, controls: Sequence[int]) -> None:
        """At INIT, while the guest runs. OSError."""
        read = self._memory.read
        proof = self._proof(read, controls)
        if self.place:
            text = check_vmcoreinfo(read(*self.place))
            if text and proof(text):
                return
        tables = self._kind.kernel_tables(read, self._map, controls)
        # Twice: the first time a kernel may just have begun. Without tables there is none.
        searches = self._searches if self._is_uninformed(tables) else 0
        self.place = self._uninformed = None
        if tables and searches < _SEARCHES:
            self.place = self._locate(proof)
        if self.place is None:
            self._uninformed, self._searches = tables, searches + 1

    def find(self, read: ReadSnapshot, controls: Sequence[int]) -> bytes | None:
        """In the snapshot, at the place where INIT or the dump before saw it: it stays where the
        kernel put it when it started. Only for another kernel than at INIT the memory is looked
        through. None: there is none, or it is lost."""
        if self._is_uninformed(self._kind.kernel_tables(read, self._map, controls)):
            return None
        proof = self._proof(read, controls)
        for known in (self.place, None):
            place = known or self._locate(proof)
            if place is None:
                return None
            start, length = place

            def there(offset: int, size: int, start: int = start) -> bytes:
                return read(start + offset, size)

            try:
                text = find_vmcoreinfo(there, length, proof)
            except OSError:  # lost: the target is full, say
                return None
            if text is not None and (known is None or proof(text)):
                self.place = place
                return text
        return None

    def _proof(self, read: ReadSnapshot, controls: Sequence[int]) -> Callable[[bytes], bool]:
        return lambda text: self._kind.is_current(text, read, self._map, controls)

    def _locate(self, proof: Callable[[bytes], bool]) -> tuple[int, int] | None:
        memory = self._memory
        return locate_vmcoreinfo(memory.read, memory.size, proof, data=memory.data())

    def _is_uninformed(self, tables: frozenset[bytes]) -> bool:
        """The kernel that INIT found without VMCOREINFO runs, or none still."""
        before = self._uninformed
        return before is not None and bool(tables & before or not tables | before)
