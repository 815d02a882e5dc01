# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF notes: found as they were packed, and none looked at twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from livedumpfs.formats.note import HEADER, Note, find_notes

names = st.binary(max_size=9).map(lambda name: name + b"\0")
notes = st.lists(st.builds(Note, names, st.integers(0, (1 << 32) - 1), st.binary(max_size=30)))


class Counted(bytes):
    """Knows how many of its bytes were copied."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, bytes):
            self.copied += len(found)
        return found


@given(notes)
def test_they_come_back(packed: list[Note]) -> None:
    data = b"".join(note.pack() for note in packed)
    found = [Note(name, kind, data[at : at + size]) for name, kind, at, size in find_notes(data)]
    assert found == packed


def test_each_byte_is_looked_at_once() -> None:
    """QEMU's guest stands still until those of all its vCPUs are found."""
    data = Counted(Note(b"CORE\0", 1, bytes(336)).pack() * 510)
    assert len(list(find_notes(data))) == 510
    assert data.copied <= len(data)


@given(st.binary(max_size=200))
def test_any_bytes_come_to_an_end(data: bytes) -> None:
    found = list(find_notes(data))
    assert len(found) <= len(data) // HEADER.size
    assert all(at >= HEADER.size for _, _, at, _ in found)
