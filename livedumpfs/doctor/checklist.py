# SPDX-License-Identifier: GPL-2.0-or-later
"""All checks, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from livedumpfs.doctor import kernel_checks, memory_checks, program_checks, rights_checks
from livedumpfs.doctor.finding import Finding
from livedumpfs.doctor.system import System

Check = Callable[[System], Finding]

CHECKS: Final[tuple[Check, ...]] = (
    kernel_checks.kernel,
    program_checks.python,
    program_checks.core,
    kernel_checks.fuse,
    kernel_checks.sharing,
    rights_checks.confinement,
    rights_checks.security_modules,
    rights_checks.tracing,
    rights_checks.real_time,
    kernel_checks.userfaultfd,
    kernel_checks.attached_userfaultfd,
    memory_checks.mappings,
    memory_checks.memory,
    memory_checks.memory_cgroup,
    memory_checks.transparent_huge_pages,
    memory_checks.huge_page_pool,
    program_checks.qemu,
    program_checks.kvm,
    program_checks.libvirt,
    kernel_checks.loop_devices,
    kernel_checks.clock_source,
    kernel_checks.wall_clock,
    program_checks.readers,
    program_checks.fleet,
)


def examine(system: System) -> list[Finding]:
    """What each of them finds."""
    return [check(system) for check in CHECKS]
