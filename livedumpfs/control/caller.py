# SPDX-License-Identifier: GPL-2.0-or-later
"""Who asks, and whether he may."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

from livedumpfs import opener
from livedumpfs.errors import HostError


@dataclass(frozen=True)
class Caller:
    """A task that uses the mount: file system uid and gid, thread id (0: of another pid namespace).

    It waits for our answer meanwhile, so its entry in /proc stays what it is.
    """

    uid: int
    gid: int
    tid: int


@dataclass(frozen=True)
class Access:
    """Who may control the host: root, the host's own user, and the members of `group` if there is
    one. Asked again at each step, because a descriptor can be handed on to somebody else."""

    owner: int = field(default_factory=os.geteuid)
    group: int | None = None

    def check(self, caller: Caller) -> None:
        """HostError EACCES unless he may."""
        if caller.uid in (0, self.owner) or self._is_member(caller):
            return
        raise HostError(
            f"user {caller.uid} may not control this host",
            errno=errno.EACCES,
            hint="root and the user who started it may",
        )

    def _is_member(self, caller: Caller) -> bool:
        if self.group is None or caller.tid == 0:
            return False
        try:
            task = opener.read_task(caller.tid)
        except (OSError, ValueError, KeyError):
            return False
        return task.uid == caller.uid and self.group in (task.gid, *task.groups)
