# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps the file that is named, says so, and keeps it mapped until standard input ends."""

import mmap
import sys

with open(sys.argv[1], "r+b") as file:
    view = mmap.mmap(file.fileno(), 0)
print("mapped", flush=True)
sys.stdin.read()
view.close()
