# SPDX-License-Identifier: GPL-2.0-or-later
"""KernelInformation: where in its memory the guest's kernel has put VMCOREINFO. To look through the
memory takes a second for each GiB or two, so it is done at INIT, and the place is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from livedumpfs.machines.machine import PhysicalRange, ReadSnapshot
from livedumpfs.machines.qemu.guest_memory import GuestMemory
from livedumpfs.machines.qemu.vmcoreinfo import (
    check_vmcoreinfo,
    find_vmcoreinfo,
    is_current,
    kernel_tables,
    locate_vmcoreinfo,
)

_SEARCHES: Final = 2
"""Of one kernel's memory, in vain, at the most."""


class KernelInformation:
    """Of one machine. `controls` are the page tables of its vCPUs: CR3 of each."""

    def __init__(self, memory: GuestMemory, memory_map: Sequence[PhysicalRange]) -> None:
        self._memory = memory
        self._map = memory_map
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
        tables = kernel_tables(read, self._map, controls)
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
        if self._is_uninformed(kernel_tables(read, self._map, controls)):
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
        return lambda text: is_current(text, read, self._map, controls)

    def _locate(self, proof: Callable[[bytes], bool]) -> tuple[int, int] | None:
        memory = self._memory
        return locate_vmcoreinfo(memory.read, memory.size, proof, data=memory.data())

    def _is_uninformed(self, tables: frozenset[bytes]) -> bool:
        """The kernel that INIT found without VMCOREINFO runs, or none still."""
        before = self._uninformed
        return before is not None and bool(tables & before or not tables | before)
