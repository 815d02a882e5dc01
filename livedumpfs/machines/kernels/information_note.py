# SPDX-License-Identifier: GPL-2.0-or-later
"""VMCOREINFO as a note of a dump, and its room."""

from __future__ import annotations

from typing import Final

from livedumpfs.formats.note import HEADER, OWN_NAME, VMCOREINFO, Note, padded
from livedumpfs.machines.kernels.vmcoreinfo import MAX_SIZE

_TYPE: Final = 0

INFORMATION_ROOM: Final = (
    HEADER.size + len(padded(VMCOREINFO)) + MAX_SIZE + HEADER.size + len(padded(OWN_NAME))
)
"""Bytes of room for the note, and for the note that fills the rest."""


def information_note(text: bytes) -> Note:
    """The note with that text."""
    return Note(VMCOREINFO, _TYPE, text)
