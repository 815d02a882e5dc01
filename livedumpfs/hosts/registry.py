# SPDX-License-Identifier: GPL-2.0-or-later
"""The registry of the hosts that run here: one small JSON file for each host, by which clients find
it without a path.

Root's hosts are in /run/livedumpfs, a user's in $XDG_RUNTIME_DIR/livedumpfs. Where a user (or the
root of a container) has neither, they are in a private directory in /tmp. An entry of a process
that has ended is ignored, and the next host removes it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from livedumpfs.proc import proc_text

SYSTEM_DIRECTORY = "/run/livedumpfs"
USERS_DIRECTORY = "/run/user/%d"
FALLBACK_DIRECTORY = "/tmp/livedumpfs-%d"
"""%d is the user id."""


MOUNT_PREFIX = "host-"
"""Before the host's pid: its mount, where none is named."""


@dataclass(frozen=True)
class Entry:
    """One host. `start_time`, in clock ticks since boot, tells the host from a later process with
    the same pid."""

    pid: int
    start_time: int
    mountpoint: str
    machine: str

    @property
    def device(self) -> str:
        """Path of its livedump file."""
        return os.path.join(self.mountpoint, "livedump")

    @property
    def name(self) -> str:
        """The name that users may give for it."""
        return os.path.basename(self.mountpoint)

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.start_time


def own_mount(mountpoint: str) -> bool:
    """Whether the host has chosen its mount itself, so that the next one of the same machine is
    mounted elsewhere."""
    name = os.path.basename(mountpoint)
    return name.startswith(MOUNT_PREFIX) and name.removeprefix(MOUNT_PREFIX).isdigit()


def mount_identity(mountpoint: str) -> str:
    """Which machine of its kind the host there has, where the machine does not know it: the mount
    that the user has named; "": none."""
    return "" if own_mount(mountpoint) else mountpoint


def start_time(pid: int) -> int | None:
    """Start time of the process, in clock ticks since boot; None: no such process, or a zombie."""
    try:
        text = proc_text(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The command's name may hold blanks and brackets: count from its end.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def directories() -> list[Path]:
    """The directories with entries. The first one is where this process writes its own entry."""
    user, system, found = os.geteuid(), Path(SYSTEM_DIRECTORY), []
    usual = USERS_DIRECTORY % user if user else None
    for runtime in dict.fromkeys((os.environ.get("XDG_RUNTIME_DIR"), usual)):
        if runtime and _is_ours(os.stat, runtime):
            found.append(Path(runtime) / "livedumpfs")
    fallback = Path(FALLBACK_DIRECTORY % user)
    if not found and not _is_writable(system):
        return [fallback, system]
    # The fallback is read, too: a host may have been started without XDG_RUNTIME_DIR.
    return [*found, system, *([fallback] if _is_ours(os.lstat, fallback) else [])]


def _is_ours(look: Callable[[str | Path], os.stat_result], directory: str | Path) -> bool:
    """Whether the directory belongs to this user. `su` leaves root another user's XDG_RUNTIME_DIR,
    and any user can make the directory in /tmp first: root's writes could be led anywhere."""
    with contextlib.suppress(OSError):
        found = look(directory)
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return False


def _is_writable(directory: Path) -> bool:
    """Whether this process may create files there, or create the directory."""
    place = directory if directory.exists() else directory.parent
    return os.access(place, os.W_OK | os.X_OK, effective_ids=True)


def own_directory() -> Path:
    """The directory where this process writes; it is made if it is missing. OSError, also when it
    belongs to another user."""
    directory = directories()[0]
    private = directory == Path(FALLBACK_DIRECTORY % os.geteuid())
    directory.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)
    if private and not _is_ours(os.lstat, directory):
        raise PermissionError(errno.EPERM, "it is another user's", str(directory))
    return directory


def entries() -> Iterator[tuple[Path, Entry]]:
    """All entries with their files, also those of dead hosts. Unreadable entries are skipped."""
    seen = set()
    for directory in directories():
        for path in sorted(directory.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
                if path.lstat().st_uid not in (0, os.geteuid()):
                    continue
                entry = Entry(**json.loads(path.read_text(encoding="utf-8")))
                if entry.pid not in seen:
                    seen.add(entry.pid)
                    yield path, entry


def running() -> list[Entry]:
    """The hosts that are alive."""
    return [entry for _, entry in entries() if entry.alive]


def add(mountpoint: str, machine: str) -> Path:
    """Write this process's entry. Returns its file. OSError: the directory cannot be made."""
    pid = os.getpid()
    entry = Entry(pid, start_time(pid) or 0, mountpoint, machine)
    directory = own_directory()
    path = directory / f"{pid}.json"
    new = directory / f"{pid}.new"
    new.write_text(json.dumps(asdict(entry)), encoding="utf-8")
    new.replace(path)
    return path


def remove(path: Path) -> None:
    """Remove an entry; harmless when it is gone."""
    with contextlib.suppress(OSError):
        path.unlink()
