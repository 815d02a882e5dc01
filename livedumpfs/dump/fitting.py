# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a dump's settings depends on its machine."""

from __future__ import annotations

import errno
from dataclasses import replace

from livedumpfs.errors import UsageError
from livedumpfs.machines import HasCpuNotes, Machine, best_backend, page_size_of
from livedumpfs.settings import DumpSettings
from livedumpfs.units import HOST_PAGE, format_size


def fitted_to_machine(machine: Machine, settings: DumpSettings) -> DumpSettings:
    """A copy with a backend that the machine has, and armed in place where its pages cannot be
    moved. UsageError: the machine lacks what is set, or its pages are larger than the granule."""
    _expect_cpu_notes(machine, settings)
    page = page_size_of(machine)
    if settings.granule and settings.granule < page:
        raise UsageError(
            f"a granule of {format_size(settings.granule)} is smaller than a page of the memory, "
            f"{format_size(page)}",
            errno=errno.EINVAL,
            hint=f"leave <granule> out, or take {format_size(page)}",
        )
    fitted = settings.for_machine(machine.backends, lambda: best_backend(machine))
    return fitted if page == HOST_PAGE else replace(fitted, arming="mprotect")


def _expect_cpu_notes(machine: Machine, settings: DumpSettings) -> None:
    """UsageError: the settings say something of notes that the machine has not."""
    if settings.cpu_notes != "auto" and not isinstance(machine, HasCpuNotes):
        raise UsageError(
            f"a {machine.name} machine has no CPU notes of QEMU's",
            errno=errno.EINVAL,
            hint="leave out <cpu_notes>",
        )
