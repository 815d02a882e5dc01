# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of one name with a {date} in it: how many of them stay."""

from __future__ import annotations

import contextlib
import fcntl
import os

from livedumpfs.errors import TargetError, UsageError, os_cause
from livedumpfs.folder import Folder
from livedumpfs.formats.superblock import Verdict
from livedumpfs.targets.content import read_content, sealed_as
from livedumpfs.targets.names import DATE, SIDECAR, dated_like, is_dated
from livedumpfs.targets.sidecar import retire_in


def expect_series(pattern: str, keep: int) -> None:
    """UsageError: nothing that could be counted."""
    if not is_dated(pattern):
        raise UsageError(f"there is no {DATE} in the name of {pattern}, so it is one dump alone")
    if keep < 1:
        raise UsageError(f"{keep} dumps cannot be kept", hint="1 or more")


def prune(pattern: str, keep: int) -> list[str]:
    """Remove finished dumps of that pattern that are older than the newest `keep` consistent ones,
    and their sidecar files: the paths that went. What is no finished dump of ours, or is being
    written, stays. TargetError: the folder, or one of them."""
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


def _older(folder: Folder, form: str, keep: int) -> list[str]:
    """Names, the oldest first."""
    dated = [(age, name) for name in folder.names("", "") if (age := dated_like(name, form))]
    kept, older = 0, []
    for _, name in sorted(dated, reverse=True):
        verdict = _finished(folder, name)
        if verdict and kept >= keep:
            older.append(name)
        kept += verdict == "consistent"
    return older[::-1]


def _finished(folder: Folder, name: str) -> Verdict | None:
    """None: it is no finished dump, or in use."""
    try:
        fd = folder.open(name, write=False)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return sealed_as(read_content(fd, folder, name))
    except OSError:
        return None
    finally:
        os.close(fd)
