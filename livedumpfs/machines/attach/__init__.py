# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that runs already as a machine: its own background snapshot, over its monitor."""

from __future__ import annotations

from livedumpfs.machines.attach.attached_machine import AttachedMachine

__all__ = ["AttachedMachine"]
