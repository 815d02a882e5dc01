# SPDX-License-Identifier: GPL-2.0-or-later
"""The dumps of one name pattern with a {date} in it: how many of them are kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import NamedTuple

from livedumpfs.errors import TargetError, UsageError, os_cause
from livedumpfs.formats.superblock import VerdictWord
from livedumpfs.rights.folder import Folder
from livedumpfs.targets.content import read_content, sealed_as
from livedumpfs.targets.names import DATE, SIDECAR, dated_like, is_dated
from livedumpfs.targets.sidecar import retire_in


def expect_series(pattern: str, keep: int) -> None:
    """UsageError: the pattern has no {date}, or `keep` is impossible."""
    if not is_dated(pattern):
        raise UsageError(f"there is no {DATE} in the name of {pattern}, so it is one dump alone")
    if keep < 1:
        raise UsageError(f"{keep} dumps cannot be kept", hint="1 or more")


def prune(pattern: str, keep: int) -> list[str]:
    """Remove finished dumps of that pattern that are older than `keep` consistent ones, and their
    sidecar files. Returns the removed paths.

    A dump is older if it was written before, and by its name, too. Where the two disagree, as when
    the clock was set back or files were copied, more dumps are kept. A file that is not a finished
    dump, or that is being written, is kept. TargetError: for the folder, or for one of the files.
    """
    expect_series(pattern, keep)
    text, form = os.path.split(pattern)
    gone = []
    try:
        folder = Folder(os.open(text or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        with contextlib.closing(folder):
            for name in _older(folder, form, keep):
                folder.remove(name)
                retire_in(folder, name + SIDECAR)
                gone.append(os.path.join(text, name))
    except OSError as error:
        raise TargetError(
            f"cannot remove older dumps like {pattern}: {os_cause(error.errno or 0)}",
            errno=error.errno or 0,
        ) from error
    return gone


class _Dump(NamedTuple):
    """A finished dump."""

    age: tuple[str, int]
    """Date and number from its name."""
    name: str
    verdict: VerdictWord
    written_ns: int
    uid: int

    def is_before(self, other: _Dump) -> bool:
        """Whether both the name and the file's time are older: the local time in a name jumps back
        each autumn. Only dumps of the same user count: in a folder for all users, another user's
        dumps may have any date."""
        by_name, written = self.age < other.age, self.written_ns <= other.written_ns
        return by_name and written and self.uid == other.uid


def _older(folder: Folder, form: str, keep: int) -> list[str]:
    """Names of the dumps to remove, the oldest first."""
    dated = [(age, name) for name in folder.names("", "") if (age := dated_like(name, form))]
    found = [one for age, name in sorted(dated) if (one := _finished(folder, name, age))]
    good = [one for one in found if one.verdict == "consistent"]
    return [one.name for one in found if sum(map(one.is_before, good)) >= keep]


def _finished(folder: Folder, name: str, age: tuple[str, int]) -> _Dump | None:
    """The dump; None: it is not a finished dump, or is in use."""
    try:
        fd = folder.open(name, write=False)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        verdict = sealed_as(read_content(fd, folder, name))
        status = os.fstat(fd)
        return _Dump(age, name, verdict, status.st_mtime_ns, status.st_uid) if verdict else None
    except OSError:
        return None
    finally:
        os.close(fd)
