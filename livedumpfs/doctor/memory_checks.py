# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of memory: mappings, huge pages, what is free, and what a cgroup leaves of it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from livedumpfs.doctor.finding import Finding, Health
from livedumpfs.doctor.system import System
from livedumpfs.huge import HUGE_SIZE
from livedumpfs.units import format_size

_GRANULE: Final = 64 << 10
"""The smallest that is chosen for a dump; native/life/sizes.c."""
_MARGIN: Final = 2048
"""Mappings that a process has besides."""
_ENOUGH: Final = 16 << 30
"""Bytes of a machine that should have the smallest granules."""
_ROOM: Final = 512 << 20
"""Bytes that the usual machine and its pool take."""
_USUAL_RAM: Final = 256 << 20
"""Bytes that `livedump host` has unless told otherwise."""
_NO_LIMIT: Final = 1 << 62
_THP: Final = "/sys/kernel/mm/transparent_hugepage"
_POOL: Final = "/sys/kernel/mm/hugepages/hugepages-2048kB"


def mappings(system: System) -> Finding:
    """How many mappings a process may have: each granule that is open costs some."""
    limit = system.number("/proc/sys/vm/max_map_count") or 65530
    most = max(0, limit - _MARGIN) * _GRANULE
    purpose = "for small granules of large machines"
    found = f"{limit}: granules of {format_size(_GRANULE)} up to {format_size(most >> 30 << 30)}"
    if most >= _ENOUGH:
        return Finding("vm.max_map_count", purpose, Health.OK, found)
    mend = "sysctl -w vm.max_map_count=1048576"
    return Finding("vm.max_map_count", purpose, Health.LIMITED, found, mend)


def transparent_huge_pages(system: System) -> Finding:
    """Whether shared memory may have them."""
    purpose = "for --huge thp"
    own = f"{_THP}/hugepages-2048kB/shmem_enabled"
    for file in (own, f"{_THP}/shmem_enabled"):
        word = system.chosen(file)
        if word in (None, "inherit"):
            continue
        if word in ("never", "deny"):
            mend = f"echo advise > {file}"
            return Finding("THP", purpose, Health.LIMITED, f"{file} is {word}", mend)
        return Finding("THP", purpose, Health.OK, f"{word}, for shared memory")
    mend = "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE, or take --huge 2M"
    return Finding("THP", purpose, Health.LIMITED, "the kernel has none", mend)


def huge_page_pool(system: System) -> Finding:
    """How many pages of 2 MiB the system's pool has."""
    name, purpose, needed = "hugetlb", "for --huge 2M, and QEMU on hugetlbfs", ("huge",)
    free = system.number(f"{_POOL}/free_hugepages")
    if free is None:
        mend = "boot a kernel with CONFIG_HUGETLBFS, or take --huge thp"
        found = "the kernel has no huge pages of 2 MiB"
        return Finding(name, purpose, Health.MISSING, found, mend, needed)
    free = max(0, free - (system.number(f"{_POOL}/resv_hugepages") or 0))
    if free:
        found = f"{free} free, {format_size(free * HUGE_SIZE)}"
        return Finding(name, purpose, Health.OK, found, needed_by=needed)
    made = system.number(f"{_POOL}/nr_hugepages") or 0
    mend = f"sysctl -w vm.nr_hugepages={made + _USUAL_RAM // HUGE_SIZE}"
    found = f"no page of 2 MiB is free; a machine of {format_size(_USUAL_RAM)} takes "
    found += str(_USUAL_RAM // HUGE_SIZE)
    return Finding(name, purpose, Health.MISSING, found, mend, needed)


def memory(system: System) -> Finding:
    """What is available, and whether the kernel promises more than it has."""
    name, purpose = "memory", "for the machine, and the pool of a dump"
    found = re.search(r"^MemAvailable:\s+(\d+) kB", system.text("/proc/meminfo") or "", re.M)
    available = int(found[1]) << 10 if found else 0
    said = f"{format_size(available)} available"
    if available < _ROOM:
        mend = "end other programs, or take a smaller --ram and --pool"
        return Finding(name, purpose, Health.LIMITED, said, mend)
    if system.number("/proc/sys/vm/overcommit_memory") == 2:
        mend = "sysctl -w vm.overcommit_memory=0"
        more = f"{said}; vm.overcommit_memory is 2, which refuses reserved address space"
        return Finding(name, purpose, Health.LIMITED, more, mend)
    return Finding(name, purpose, Health.OK, said)


def memory_cgroup(system: System) -> Finding:
    """The tightest limit of the groups of this process, of either version."""
    name, purpose = "memory cgroup", "limits machine and pool together"
    limits = list(_limits(system))
    if not limits:
        return Finding(name, purpose, Health.OK, "no limit")
    left, limit, file = min(limits)
    said = f"{format_size(max(0, left))} left of {format_size(limit)}"
    if left >= _ROOM:
        return Finding(name, purpose, Health.OK, said)
    mend = f"echo {limit + _ROOM - max(0, left)} > {file}"
    return Finding(name, purpose, Health.LIMITED, said, mend)


def _limits(system: System) -> list[tuple[int, int, str]]:
    """(bytes left, limit, file of the limit) of each group that has one. As seen from a container,
    whose own group is the root."""
    found = []
    for line in (system.text("/proc/self/cgroup") or "").split("\n"):
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            top, most, used = "/sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, most = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
            used = "memory.usage_in_bytes"
        else:
            continue
        for folder in [PurePosixPath(group), *PurePosixPath(group).parents]:
            place = f"{top}/{str(folder).lstrip('/')}".rstrip("/")
            limit = system.number(f"{place}/{most}")
            if limit is not None and limit < _NO_LIMIT:
                left = limit - (system.number(f"{place}/{used}") or 0)
                found.append((left, limit, f"{place}/{most}"))
    return found
