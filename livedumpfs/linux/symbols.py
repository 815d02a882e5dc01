# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's table of symbols (kallsyms), as scripts/kallsyms.c of Linux 6.0 and later lays it
out: names are sequences of tokens, addresses are offsets from one base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.errors import InvalidDump
from livedumpfs.linux.kernel_description import Description

ReadVirtual = Callable[[int, int], bytes]
_TOKENS: Final = 256
_KNOWN: Final = "_stext"
"""VMCOREINFO says where that is, too."""
_MOST: Final = 1 << 21
"""More symbols than that no kernel has."""
_LONG: Final = 0x80
"""A name of so many tokens has its length in two bytes."""


class Symbols:
    """Names and their virtual addresses. InvalidDump: the table makes no sense."""

    def __init__(self, read: ReadVirtual, said: Description) -> None:
        self._read = read
        self._said = said

    def __getitem__(self, name: str) -> int:
        """InvalidDump: there is none of that name."""
        try:
            return self._addresses[name]
        except KeyError:
            raise InvalidDump(f"the kernel has no symbol {name}") from None

    @cached_property
    def _addresses(self) -> dict[str, int]:
        said = self._said
        count = int.from_bytes(self._read(said.symbol("kallsyms_num_syms"), 4), "little")
        if not 0 < count < _MOST:
            raise InvalidDump(f"the kernel's table of symbols says that it has {count}")
        offsets = np.frombuffer(self._read(said.symbol("kallsyms_offsets"), 4 * count), "<i4")
        base = int.from_bytes(self._read(said.symbol("kallsyms_relative_base"), 8), "little")
        names, known = list(self._names(count)), said.symbol(_KNOWN)
        for addresses in _forms(offsets.astype(np.int64), np.uint64(base)):
            found = dict(zip(names, addresses.tolist(), strict=False))
            if found.get(_KNOWN) == known:
                return found
        raise InvalidDump(f"the kernel's table of symbols does not have {_KNOWN} where it is")

    def _names(self, count: int) -> Iterator[str]:
        """Without the letter of their kind, which comes first."""
        tokens = self._tokens()
        start, end = self._said.symbol("kallsyms_names"), self._said.symbol("kallsyms_token_table")
        data, at = self._read(start, end - start), 0
        for _ in range(count):
            length = data[at]
            at += 1
            if length & _LONG:
                length = length & ~_LONG | data[at] << 7
                at += 1
            name = b"".join(tokens[one] for one in data[at : at + length])
            at += length
            yield name[1:].decode("ascii", "replace")

    def _tokens(self) -> list[bytes]:
        table, index = (self._said.symbol(f"kallsyms_token_{one}") for one in ("table", "index"))
        places = np.frombuffer(self._read(index, 2 * _TOKENS), "<u2")
        text = self._read(table, index - table)
        return [text[place:].partition(b"\0")[0] for place in map(int, places)]


def _forms(offsets: npt.NDArray[np.int64], base: np.uint64) -> Iterator[npt.NDArray[np.uint64]]:
    """The addresses by offsets from the base, of 32 bits without a sign; then as x86-64 had them up
    to Linux 6.14 (CONFIG_KALLSYMS_ABSOLUTE_PERCPU): those of per-CPU variables stand for
    themselves, the others are -1 less their offset."""
    yield (offsets & 0xFFFF_FFFF).astype(np.uint64) + base
    yield np.where(offsets < 0, (-1 - offsets).astype(np.uint64) + base, offsets.astype(np.uint64))
