# SPDX-License-Identifier: GPL-2.0-or-later
"""What stat, statfs and readdir say of a mount: of a host's, and of a finished dump's.

Programs that copy and back up believe it: GNU tar does not read a file that has a size and no
blocks, rsync none whose size and time are as before, and du counts a file once for each inode
number. So each number here is true, or on the safe side of it.
"""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from livedumpfs.errors import os_cause

BLOCK: Final = 4096
"""What is stored, is in these. Some kernels do not take more than a page for st_blksize."""
_UNIT: Final = 512
"""Of st_blocks, whatever st_blksize is."""
_NAME_MAX: Final = 255
_ROOT: Final = 1
_DUMPS: Final = 1 << 48
"""Inode numbers of files of dumps are above this, and below what a double holds exactly."""


@dataclass(frozen=True)
class Attributes:
    """Of one file or directory."""

    number: int
    """The inode's; unique in its mount."""
    mode: int
    """Kind and rights."""
    changed_ns: int
    """Since the epoch."""
    size: int = 0
    stored: int = 0
    """Bytes that are no holes, at the least."""
    links: int = 1

    def as_stat(self, owner: int, group: int) -> dict[str, int]:
        """struct stat, as fusepy takes it with use_ns."""
        return {
            "st_ino": self.number,
            "st_mode": self.mode,
            "st_nlink": self.links,
            "st_uid": owner,
            "st_gid": group,
            "st_rdev": 0,
            "st_size": self.size,
            "st_blksize": BLOCK,
            "st_blocks": blocks(self.stored) * (BLOCK // _UNIT),
            "st_atime": self.changed_ns,
            "st_mtime": self.changed_ns,
            "st_ctime": self.changed_ns,
        }


def blocks(size: int) -> int:
    """Of BLOCK bytes, that `size` bytes take."""
    return -(-size // BLOCK)


def as_statfs(files: int, stored_blocks: int) -> dict[str, int]:
    """struct statvfs: full, as every file system is that nothing can be written to. Whether it is
    read-only the kernel adds."""
    return {
        "f_bsize": BLOCK,
        "f_frsize": BLOCK,
        "f_blocks": stored_blocks,
        "f_bfree": 0,
        "f_bavail": 0,
        "f_files": files,
        "f_ffree": 0,
        "f_favail": 0,
        "f_namemax": _NAME_MAX,
    }


def dump_numbers(identity: bytes, low: int = 0) -> int:
    """The first of 256 inode numbers for one dump's files. Dumps of different `identity` have
    different ones, as surely as 24 bits can tell, and always if `low` differs in its last 16."""
    high = int.from_bytes(hashlib.sha256(identity).digest()[:3], "little")
    return _DUMPS | high << 24 | (low & 0xFFFF) << 8


class Tree:
    """Files by path from the root, without a leading slash, and the directories above them."""

    def __init__(
        self,
        numbers: Mapping[str, int],
        directories: Iterable[str] = (),
        links: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Files, directories and links with their inode numbers; the root has its own.
        `directories`: those that may be empty. `links`: where the symbolic links lead."""
        self.numbers: dict[str, int] = {"": _ROOT, **numbers}
        self.links = links
        self._children: dict[str, list[str]] = {one: [] for one in ("", *directories)}
        for path in numbers:
            above = path.rpartition("/")[0]
            self._children.setdefault(above, []).append(path)

    def is_directory(self, path: str) -> bool:
        """False: a file or a link. FileNotFoundError: neither."""
        if path not in self.numbers:
            raise FileNotFoundError(errno.ENOENT, os_cause(errno.ENOENT), path)
        return path in self._children

    def directory(self, path: str, mode: int, changed_ns: int) -> Attributes:
        """Of a directory with those rights. Each below it has a link to it: its `..`."""
        links = 2 + sum(one in self._children for one in self._children[path])
        number = self.numbers[path]
        return Attributes(number, stat.S_IFDIR | mode, changed_ns, links=links)

    def link(self, path: str, changed_ns: int) -> Attributes:
        """Of a symbolic link. Its rights are those of where it leads."""
        size = len(self.links[path])
        return Attributes(self.numbers[path], stat.S_IFLNK | 0o777, changed_ns, size)

    def entries(self, path: str) -> list[tuple[str, dict[str, int], int]]:
        """readdir's: names with inode number and kind, as fusepy takes them."""
        above = path.rpartition("/")[0]
        found = [(".", path), ("..", above)]
        found += [(one.rpartition("/")[2], one) for one in self._children[path]]
        return [(name, self._entry(one), 0) for name, one in found]

    def _entry(self, path: str) -> dict[str, int]:
        kind = stat.S_IFDIR if path in self._children else stat.S_IFREG
        kind = stat.S_IFLNK if path in self.links else kind
        return {"st_ino": self.numbers[path], "st_mode": kind}


def numbered(paths: Iterable[str], first: int) -> dict[str, int]:
    """One number after the other."""
    return {path: number for number, path in enumerate(paths, first)}
