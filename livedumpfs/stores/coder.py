# SPDX-License-Identifier: GPL-2.0-or-later
"""Coder: the form in which a chunk is kept, compressed, and encrypted where the store is."""

from __future__ import annotations

from typing import Protocol

from livedumpfs.stores.chunk import LEVEL, compress, decompress
from livedumpfs.stores.objects import Bytes


class Coder(Protocol):
    """Any thread may call."""

    def encode(self, identity: bytes, data: Bytes) -> bytes:
        """The form of the chunk with that id."""

    def decode(self, identity: bytes, stored: bytes, most: int) -> bytes:
        """Its bytes, at most `most`. InvalidDump: it is damaged, or the form of another chunk."""


class PlainCoder:
    """Compressed only, as casync keeps chunks."""

    def __init__(self, level: int = LEVEL) -> None:
        self._level = level

    def encode(self, identity: bytes, data: Bytes) -> bytes:
        """See Coder."""
        return compress(data, self._level)

    def decode(self, identity: bytes, stored: bytes, most: int) -> bytes:
        """See Coder."""
        return decompress(stored, most)
