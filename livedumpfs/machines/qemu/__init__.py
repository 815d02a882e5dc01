# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU process with the user's own command line as a machine."""

from __future__ import annotations

from livedumpfs.machines.qemu.command_line import QemuCommand
from livedumpfs.machines.qemu.ends import EndedAtOnce
from livedumpfs.machines.qemu.qemu_machine import QemuMachine

__all__ = ["EndedAtOnce", "QemuCommand", "QemuMachine"]
