# SPDX-License-Identifier: GPL-2.0-or-later
"""kcore: a core file that shows a Linux by the kernel's own addresses, as /proc/kcore does, for
debuggers that do not walk page tables: gdb, and drgn on RISC-V."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from livedumpfs.errors import InvalidDump
from livedumpfs.formats import Image, MachineInfo, Registers, vmcore_image
from livedumpfs.formats.machine_info import MAX_RANGES
from livedumpfs.formats.snapshot_files import KCORE, MakeKcore
from livedumpfs.linux.kernel_description import description_of
from livedumpfs.linux.kernel_tables import kernel_tables
from livedumpfs.paging.mapped_ranges import Ranges, mapped_ranges
from livedumpfs.paging.table_form import ReadPhysical, TableForm


def kcore_image(
    machine: MachineInfo, arena_size: int, registers: Sequence[Registers]
) -> MakeKcore | None:
    """Of a machine's dump; what cannot be read is not shown. None: there is no Linux in it whose
    page tables are known here.

    The image has a PT_LOAD for each range of the kernel's mappings that is memory: its own text and
    data, all of the memory by linear addresses, modules, stacks; their p_paddr is true, too."""
    try:
        description = description_of(machine.notes)
        form, table = kernel_tables(machine.architecture, description)
    except InvalidDump:
        return None
    return partial(_image, machine, arena_size, registers, form, table)


def _image(
    machine: MachineInfo,
    arena_size: int,
    registers: Sequence[Registers],
    form: TableForm,
    table: int,
    read: ReadPhysical,
) -> Image:
    loads = memory_of(mapped_ranges(read, form, table), machine)
    return vmcore_image(machine, arena_size, registers, name=KCORE, loads=loads)


def memory_of(ranges: Ranges, machine: MachineInfo) -> list[tuple[int, int, int, int]]:
    """The parts of mapped ranges that are memory, at most MAX_RANGES, each as a PT_LOAD's virtual
    address, physical address, bytes, and arena offset."""
    rows = [(r.start, r.end, r.arena_offset) for r in machine.memory_map]
    memory = np.array(rows, np.uint64).reshape(-1, 3)
    begin, end = ranges[:, 1], ranges[:, 1] + ranges[:, 2]
    # Of each mapped range, the memory ranges [first, last) that it meets: these are sorted.
    first = np.searchsorted(memory[:, 1], begin, "right")
    last = np.searchsorted(memory[:, 0], end, "left")
    counts = np.maximum(last - first, 0)
    # The last ones stay: the kernel itself lies highest.
    above = np.cumsum(counts[::-1])[::-1] - counts
    counts = np.minimum(counts, np.maximum(MAX_RANGES - above, 0))
    mapped = np.repeat(np.arange(len(ranges)), counts)
    nth = np.arange(len(mapped)) - np.repeat(np.cumsum(counts) - counts, counts)
    met = memory[first[mapped] + nth]
    start = np.maximum(begin[mapped], met[:, 0])
    size = np.minimum(end[mapped], met[:, 1]) - start
    virtual = ranges[mapped, 0] + (start - begin[mapped])
    columns = (virtual, start, size, met[:, 2] + (start - met[:, 0]))
    return list(zip(*(column.tolist() for column in columns), strict=True))
