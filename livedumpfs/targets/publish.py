# SPDX-License-Identifier: GPL-2.0-or-later
"""A finished dump gets its name. At each moment the name leads to a whole dump: the last one, or
this one. `tests/model/rename.pml` proves this for a kill and for a power loss.

The dump is renamed first, its sidecar after it. In between there are two sidecar files; each one
names the inode of its dump, so a reader knows which one belongs to the dump.
"""

from __future__ import annotations

import os

from livedumpfs.errors import TargetError, os_cause
from livedumpfs.formats.superblock import VerdictWord
from livedumpfs.rights.folder import FolderLike
from livedumpfs.targets.names import SIDECAR
from livedumpfs.targets.sidecar import belongs_to, retire_in
from livedumpfs.targets.target import Goal, Target


def publish(
    target: Target, sidecar: Target | None, verdict: VerdictWord, *, describes_itself: bool
) -> None:
    """Give the sealed dump its name, durably; does nothing when it has the name already.
    `describes_itself`: readers of this dump ignore a sidecar file at the usual place. TargetError:
    the dump keeps its present name, and why."""
    goal, folder = target.goal, target.folder
    if goal is None or folder is None or verdict == "incomplete":
        return
    _expect_its_turn(target, verdict)
    try:
        if sidecar:
            _drop_stale(target, sidecar)
        if not describes_itself and not _is_usual(goal, sidecar):
            retire_in(folder, goal.name + SIDECAR)
        folder.replace(target.name, goal.name)
        target.path, target.goal = goal.path, None
        if describes_itself:
            retire_in(folder, goal.name + SIDECAR)
        if sidecar and sidecar.goal and sidecar.folder:
            sidecar.folder.replace(sidecar.name, sidecar.goal.name)
            sidecar.path, sidecar.goal = sidecar.goal.path, None
    except OSError as error:
        if target.goal and _is_named(target, folder, goal):
            target.path, target.goal = goal.path, None
            raise TargetError(
                f"cannot sync the folder of {goal.path}: {os_cause(error.errno or 0)}",
                errno=error.errno or 0,
                hint="the dump is whole there, but may lose that name if the power fails",
            ) from error
        place = sidecar if sidecar and target.goal is None else target
        new = (place.goal or goal).path
        raise TargetError(
            f"cannot rename {place.path} to {new}: {os_cause(error.errno or 0)}",
            errno=error.errno or 0,
            hint="the dump is whole there",
        ) from error


def _is_named(target: Target, folder: FolderLike, goal: Goal) -> bool:
    """Whether the dump has the name, so that only a later step failed."""
    try:
        there = folder.look(goal.name)
    except OSError:
        return False
    return there is not None and (there.device, there.inode) == target.identity


def _is_usual(goal: Goal, sidecar: Target | None) -> bool:
    """Whether the new sidecar gets the place where readers look first."""
    return sidecar is not None and (sidecar.goal or sidecar).path == goal.path + SIDECAR


def _expect_its_turn(target: Target, verdict: VerdictWord) -> None:
    goal, folder = target.goal, target.folder
    assert goal and folder
    if not target.has_name():
        raise _kept(
            target, f"{target.path} was moved during the dump", "the new dump is at its new place"
        )
    there = folder.look(goal.name)
    same = there is None or (
        goal.standing is not None
        and (there.device, there.inode) == (goal.standing.device, goal.standing.inode)
    )
    if not (same or goal.force):
        raise _kept(target, f"{goal.path} became another file during the dump")
    if there and verdict == "torn" and goal.verdict == "consistent" and not goal.force:
        raise _kept(target, f"the dump is torn, and {goal.path} holds a consistent one")


def _kept(target: Target, why: str, where: str = "") -> TargetError:
    return TargetError(why, hint=where or f"the new dump is {target.path}")


def _drop_stale(target: Target, sidecar: Target) -> None:
    """Remove a sidecar file at the new one's name that names our file's inode. It belongs to an
    older dump, which had that inode number, and would say that this dump is sealed."""
    if sidecar.goal is None or sidecar.folder is None:
        return
    try:
        fd = sidecar.folder.open(sidecar.goal.name, write=False)
    except OSError:
        return
    try:
        stale = belongs_to(fd, target.identity[1])
    finally:
        os.close(fd)
    if stale:
        sidecar.folder.remove(sidecar.goal.name)
