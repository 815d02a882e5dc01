# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages: the kinds that an arena can have, and why the kernel gives none."""

from __future__ import annotations

import contextlib
import errno
import re
from pathlib import Path
from typing import Final, Literal, get_args

from livedumpfs.errors import UsageError, WrongType, os_cause
from livedumpfs.units import HOST_PAGE, format_size

Huge = Literal["thp", "2M"]

HUGE: Final[tuple[Huge, ...]] = get_args(Huge)
HUGE_SIZE: Final = 2 << 20
"""Bytes of one of the pool ("2M")."""
THP_SIZE: Final = HOST_PAGE // 8 * HOST_PAGE
"""Bytes of a transparent one: what one entry of the next level of page tables maps, 2 MiB with
pages of 4 KiB."""

_MEMINFO = Path("/proc/meminfo")
_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_USUAL_POOL: Final = "/proc/sys/vm/nr_hugepages"
_THP = Path("/sys/kernel/mm/transparent_hugepage")
_OFF: Final = ("never", "deny")


def check_huge(huge: str | None, size: int) -> None:
    """UsageError: no such kind, or an arena of `size` bytes cannot have it."""
    if huge is None:
        return
    if not isinstance(huge, str):
        raise WrongType(f"the kind of huge pages must be text, not {type(huge).__name__}")
    if huge not in HUGE:
        raise UsageError(f"no such huge pages: {huge!r}", hint=f"{' or '.join(HUGE)}")
    if huge == "thp" and size < THP_SIZE:
        raise UsageError(
            f"an arena of {format_size(size)} has no room for a huge page",
            errno=errno.EINVAL,
            hint=f"{format_size(THP_SIZE)} or more",
        )
    if huge == "2M" and (size % HUGE_SIZE or not size):
        raise UsageError(
            f"an arena of huge pages cannot have {size} bytes: that is no multiple of "
            f"{format_size(HUGE_SIZE)}",
            errno=errno.EINVAL,
            hint=f"{-(-size // HUGE_SIZE) * HUGE_SIZE or HUGE_SIZE} has room for it",
        )


def why_none(huge: str | None, size: int, error: int) -> tuple[str, str] | None:
    """Cause and hint for the error of an arena of `size` bytes; None: it is not about huge
    pages."""
    if huge == "2M" and error in (errno.ENOSPC, errno.EOPNOTSUPP):
        return _why_no_pool(size, error)
    if huge == "thp" and error == errno.EOPNOTSUPP:
        return _why_no_thp()
    return None


def _why_no_pool(size: int, error: int) -> tuple[str, str]:
    needed = size // HUGE_SIZE
    try:
        made, free, promised = (
            int((_POOL / f"{name}_hugepages").read_text()) for name in ("nr", "free", "resv")
        )
    except (OSError, ValueError):
        return "the kernel has no huge pages of 2 MiB", "huge pages thp, or none"
    left = free - promised
    if error == errno.EOPNOTSUPP or left >= needed:
        return (
            f"its {needed} huge pages: {os_cause(error)}",
            "a cgroup or seccomp may forbid them: see hugetlb.2MB.max",
        )
    return (
        f"it needs {needed} huge pages of 2 MiB, and {left} are free",
        f"echo {made + needed - left} > {_pool_file()}",
    )


def _pool_file() -> str:
    """Where the pool is made larger: the short name is that of the default size."""
    with contextlib.suppress(OSError):
        found = re.search(r"^Hugepagesize:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
        if found and int(found[1]) << 10 != HUGE_SIZE:
            return str(_POOL / "nr_hugepages")
    return _USUAL_POOL


def _why_no_thp() -> tuple[str, str]:
    """The setting for pages of that size overrides that for all sizes, where the kernel has it
    (6.8) and it does not say "inherit"."""
    for path in (_THP / f"hugepages-{THP_SIZE >> 10}kB" / "shmem_enabled", _THP / "shmem_enabled"):
        with contextlib.suppress(OSError):
            found = re.search(r"\[(\w+)\]", path.read_text())
            if found and found[1] in _OFF:
                return (
                    f"shared memory has no transparent huge pages: {path} is {found[1]!r}",
                    f"echo advise > {path}",
                )
            if found and found[1] != "inherit":
                break
    else:
        if not _THP.exists():
            return "the kernel has no transparent huge pages", "huge pages 2M, or none"
    return (
        f"the kernel has no {format_size(THP_SIZE)} of memory in one piece just now",
        "echo 1 > /proc/sys/vm/compact_memory",
    )
