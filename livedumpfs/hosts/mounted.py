# SPDX-License-Identifier: GPL-2.0-or-later
"""The livedumpfs mounts, as the kernel lists them in mountinfo (proc(5)). The mounts themselves are
never accessed: the process that serves one may hang."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from livedumpfs.proc import proc_lines

FILE_SYSTEM = "livedumpfs"
OURS = f"fuse.{FILE_SYSTEM}"
"""File system type of our mounts."""


@dataclass(frozen=True)
class Mount:
    """A mount of a host, or of `livedump mount`."""

    point: str
    """Absolute path of the mount point."""
    user: int
    """Id of the user that mounted it, and may enter it."""
    open_to_others: bool
    """True: other users may enter it, root too, as far as the modes of its files allow. False: no
    other user may."""
    number: str = ""
    """MAJOR:MINOR of its files: no other mount of this kernel has it."""


def our_mounts() -> Iterator[Mount]:
    """The livedumpfs mounts of this mount namespace."""
    for point, number, kind, options in _all_mounts():
        if kind == OURS:
            yield _mount(point, number, options.split(","))


def mounts_at(mountpoint: str) -> list[str]:
    """Types of the file systems that are mounted there. The last one covers the others."""
    return [kind for point, _, kind, _ in _all_mounts() if point == mountpoint]


def _all_mounts() -> Iterator[tuple[str, str, str, str]]:
    """(mount point, device number, type, options) of each mounted file system."""
    for line in proc_lines("/proc/self/mountinfo"):
        before, _, rest = line.partition(" - ")
        fields = before.split(" ")
        words = rest.split(" ")  # the source between type and options may be empty
        yield _unescape(fields[4]), fields[2], words[0], words[-1]


def _mount(point: str, number: str, options: list[str]) -> Mount:
    users = [one.partition("=")[2] for one in options if one.startswith("user_id=")]
    return Mount(point, int(users[0]) if users else 0, "allow_other" in options, number)


def _unescape(path: str) -> str:
    """Undo the octal escapes that mountinfo has for blank, tab, newline and backslash."""
    for code in ("040", "011", "012", "134"):
        path = path.replace(f"\\{code}", chr(int(code, 8)))
    return path
