# SPDX-License-Identifier: GPL-2.0-or-later
"""drgn and pyelftools with a core dump of so many ranges: the last one has its byte."""

from __future__ import annotations

import sys

import drgn
from elftools.elf.elffile import ELFFile

path, last, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
program = drgn.Program()
program.set_core_dump(path)
assert program.read(last, 1, physical=True) == b"\x09"
with open(path, "rb") as file:
    assert ELFFile(file).num_segments() == count + 1
