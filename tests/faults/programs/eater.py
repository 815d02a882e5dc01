# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by programs of short_of/: takes a MiB of memory for each line that it reads, and keeps it."""

from __future__ import annotations

import sys

MIB = 1 << 20

eaten = []
for _ in sys.stdin:
    eaten.append(bytearray(b"1") * MIB)
    print("eaten", flush=True)
