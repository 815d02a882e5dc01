# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that runs, of a host that then waits for a line."""

from __future__ import annotations

import sys

from livedumpfs.machines.qemu import QemuMachine


def started() -> QemuMachine:
    """By the arguments of the program."""
    machine = QemuMachine(sys.argv[1:])
    machine.start()
    print("started", flush=True)
    sys.stdin.readline()
    return machine
