# SPDX-License-Identifier: GPL-2.0-or-later
"""What drgn reads of a dump, by physical and by virtual addresses."""

from __future__ import annotations

import json
import sys

import drgn

program = drgn.Program()
program.set_core_dump(sys.argv[1])
for address, length in json.loads(sys.argv[2]):
    print(program.read(address, length, True).hex())
    assert program.read(address, length, True) == program.read(address, length, False)
print(program.platform.arch.name)
