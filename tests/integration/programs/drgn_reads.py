# SPDX-License-Identifier: GPL-2.0-or-later
"""What drgn reads of a dump: a sum of all."""

from __future__ import annotations

import hashlib
import json
import sys

import drgn

program = drgn.Program()
program.set_core_dump(sys.argv[1])
memory = b"".join(program.read(*one, True) for one in json.loads(sys.argv[2]))
print(program.platform.arch.name, hashlib.sha256(memory).hexdigest())
try:
    print(program.read(int(sys.argv[3]), 8, True))
except drgn.FaultError:
    print("no data")
