# SPDX-License-Identifier: GPL-2.0-or-later
"""The tasks of a Linux in a dump, and the moment of the first answer. With the kernel's symbols
alone: load_debug_info looks at all modules too, in 11,000 small reads."""

from __future__ import annotations

import sys
import time

import drgn
from drgn.helpers.linux import for_each_task

program = drgn.Program()
program.set_core_dump(sys.argv[1])
program.main_module("kernel", create=True).try_file(sys.argv[2])
release = program["init_uts_ns"].name.release.string_().decode()
print(time.monotonic_ns(), release, sep="\n")
for task in for_each_task(program):
    print(task.pid.value_(), task.comm.string_().decode())
