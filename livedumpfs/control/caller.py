# SPDX-License-Identifier: GPL-2.0-or-later
"""The task that asks, and whether it may."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

from livedumpfs import abi
from livedumpfs.errors import HostError
from livedumpfs.rights import opener


@dataclass(frozen=True)
class Caller:
    """A task that uses the mount: file system uid and gid, thread id (0: of another pid namespace).

    It waits for the answer meanwhile, so its entry in /proc stays what it is.
    """

    uid: int
    gid: int
    tid: int
    opened_by: tuple[int, int] | None = None
    """uid and gid of the task that opened the file that it uses; None: it did so itself."""

    @property
    def named(self) -> str:
        """For `released`: what took the step."""
        return f"by process {self.tid} of user {self.uid}" if self.tid else "by a client"


@dataclass(frozen=True)
class Access:
    """The users that may control the host: root, the host's own user, and the members of `group`
    if there is one. Asked again at each step, because a descriptor can be handed on to another
    task: to one that may not, or as its output to a set-user-ID program, whose rights would then
    count."""

    owner: int = field(default_factory=os.geteuid)
    group: int | None = None
    longest_hold_s: float = abi.HOLD_MOST_NS / 1e9
    """Longest that HOLD may stop the machine; 0: there is no HOLD. It may come again and again."""

    def check_hold(self, seconds: float) -> None:
        """HostError EPERM: this host allows no HOLD of that length, whatever the caller."""
        if seconds > self.longest_hold_s:
            most = self.longest_hold_s
            how = f"for more than {most:g} s" if most else "at all"
            raise HostError(
                f"HOLD: this machine may not be held {how}",
                errno=errno.EPERM,
                hint="its host was started so",
            )

    def check(self, caller: Caller) -> None:
        """HostError EACCES unless it may, and has opened the file itself."""
        if not (self.sees_all(caller) or self._is_member(caller)):
            raise HostError(
                f"user {caller.uid} may not control this host",
                errno=errno.EACCES,
                hint="root and the user who started it may",
            )
        if caller.opened_by not in (None, (caller.uid, caller.gid)):
            raise HostError(
                f"user {caller.uid} has not opened this file",
                errno=errno.EACCES,
                hint="another user did",
            )

    def sees_all(self, caller: Caller) -> bool:
        """Root, and the host's own user: what others did is no secret to them."""
        return caller.uid in (0, self.owner)

    def _is_member(self, caller: Caller) -> bool:
        if self.group is None or caller.tid == 0:
            return False
        try:
            task = opener.read_task(caller.tid)
        except (OSError, ValueError, KeyError):
            return False
        return task.uid == caller.uid and self.group in (task.gid, *task.groups)
