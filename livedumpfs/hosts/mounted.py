# SPDX-License-Identifier: GPL-2.0-or-later
"""Our mounts, as the kernel lists them. The mounts themselves are never asked: the
process that serves one may hang."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FILE_SYSTEM = "livedumpfs"
OURS = f"fuse.{FILE_SYSTEM}"
"""Type of our mounts."""


@dataclass(frozen=True)
class Mount:
    """One of a host, or of `livedump mount`."""

    point: str
    """Absolute path."""
    user: int
    """Who mounted it, and may enter it."""
    open_to_others: bool
    """The modes of its files count for all other users, root too; else none of them enters."""


def our_mounts() -> Iterator[Mount]:
    """Those of this mount namespace."""
    for point, kind, options in _all_mounts():
        if kind == OURS:
            yield _mount(point, options.split(","))


def mounts_at(mountpoint: str) -> list[str]:
    """Types of the file systems that are mounted there; the last is the one that is seen."""
    return [kind for point, kind, _ in _all_mounts() if point == mountpoint]


def _all_mounts() -> Iterator[tuple[str, str, str]]:
    """Mount point, type and options of the file system."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            words = rest.split()  # the source between type and options may be empty
            yield _unescape(fields.split()[4]), words[0], words[-1]


def _mount(point: str, options: list[str]) -> Mount:
    users = [one.partition("=")[2] for one in options if one.startswith("user_id=")]
    return Mount(point, int(users[0]) if users else 0, "allow_other" in options)


def _unescape(path: str) -> str:
    """mountinfo writes blank, tab, newline and backslash in octal."""
    for code in ("040", "011", "012", "134"):
        path = path.replace(f"\\{code}", chr(int(code, 8)))
    return path
