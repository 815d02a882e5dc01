# SPDX-License-Identifier: GPL-2.0-or-later
"""The log of a Linux in a dump: printk's ring of records, which VMCOREINFO describes wholly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from livedumpfs.linux.kernel import Kernel

_STATE_SHIFT: Final = 62
_ID_BITS: Final = (1 << _STATE_SHIFT) - 1
_COMMITTED, _FINALIZED = 1, 2
_MOST_BITS: Final = 28
"""Of the number of records, and of bytes; a kernel's log is not larger."""
_WORD: Final = 8


@dataclass(frozen=True)
class LogRecord:
    """One record."""

    time_ns: int
    """Of the kernel's clock, from its start."""
    text: str

    def __str__(self) -> str:
        seconds, rest = divmod(self.time_ns, 1_000_000_000)
        return f"[{seconds:5d}.{rest // 1000:06d}] {self.text}"


def log_records(kernel: Kernel) -> Iterator[LogRecord]:
    """From the oldest on; records that are being written are left out."""
    said, number = kernel.description, kernel.number
    ring = number(said.symbol("prb"))
    descs = ring + said.offset("printk_ringbuffer.desc_ring")
    bits = min(number(descs + said.offset("prb_desc_ring.count_bits"), 4), _MOST_BITS)
    table = number(descs + said.offset("prb_desc_ring.descs"))
    infos = number(descs + said.offset("prb_desc_ring.infos"))
    first, last = (
        number(descs + said.offset(f"prb_desc_ring.{one}_id")) for one in ("tail", "head")
    )
    texts = _Texts(kernel, ring + said.offset("printk_ringbuffer.text_data_ring"))
    for one in range(min((last - first & _ID_BITS) + 1, 1 << bits)):
        identity = first + one & _ID_BITS
        index = identity & (1 << bits) - 1
        desc = table + index * said.size("prb_desc")
        state = number(desc + said.offset("prb_desc.state_var"))
        if state >> _STATE_SHIFT not in (_COMMITTED, _FINALIZED) or state & _ID_BITS != identity:
            continue
        info = infos + index * said.size("printk_info")
        length = number(info + said.offset("printk_info.text_len"), 2)
        text = texts.read(desc + said.offset("prb_desc.text_blk_lpos"), length)
        yield LogRecord(number(info + said.offset("printk_info.ts_nsec")), text)


class _Texts:
    """The ring of the texts."""

    def __init__(self, kernel: Kernel, ring: int) -> None:
        said = kernel.description
        self._kernel = kernel
        self._bits = min(
            kernel.number(ring + said.offset("prb_data_ring.size_bits"), 4), _MOST_BITS
        )
        self._data = kernel.number(ring + said.offset("prb_data_ring.data"))

    def read(self, place: int, length: int) -> str:
        """`place`: address of the record's begin and next."""
        said, number = self._kernel.description, self._kernel.number
        begin = number(place + said.offset("prb_data_blk_lpos.begin"))
        after = number(place + said.offset("prb_data_blk_lpos.next"))
        if begin & 1:  # it has no text
            return ""
        at = begin & (1 << self._bits) - 1
        if begin >> self._bits != after - 1 >> self._bits:
            at = 0  # it did not fit in front of the end
        text = self._kernel.read(self._data + at + _WORD, length)
        return text.decode("utf-8", "backslashreplace")
