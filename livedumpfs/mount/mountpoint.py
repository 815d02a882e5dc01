# SPDX-License-Identifier: GPL-2.0-or-later
"""The place of a mount: whether one can be made there, why it failed, and taking one away. A mount
itself is asked only on a thread of its own: the process that serves it may hang."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import threading

from livedumpfs.errors import HostError, os_cause
from livedumpfs.hosts import registry
from livedumpfs.hosts.mounted import OURS, mounts_at
from livedumpfs.proc import proc_fields
from livedumpfs.thread import start_thread

UNMOUNT_TIMEOUT = 2.5
"""Seconds that each of the ways to unmount may take."""
_ALREADY_GONE = (errno.ENOTCONN, errno.ECONNABORTED)
_CAP_SYS_ADMIN = 1 << 21


def clean_up(mountpoint: str) -> None:
    """Unmount what dead hosts left, at `mountpoint` and where the registry says; remove their
    entries. HostError EBUSY: a living host serves `mountpoint`."""
    for path, entry in registry.entries():
        if entry.alive:
            if entry.mountpoint == mountpoint and is_mounted(mountpoint):
                raise HostError(
                    f"{mountpoint} is the mount of another host (pid {entry.pid})",
                    errno=errno.EBUSY,
                )
            continue
        if is_mounted(entry.mountpoint) and is_stale(entry.mountpoint):
            with contextlib.suppress(HostError):
                unmount(entry.mountpoint)
        registry.remove(path)
    if is_mounted(mountpoint) and is_stale(mountpoint):
        unmount(mountpoint)


def check_mountpoint(mountpoint: str) -> None:
    """HostError: no directory (ENOENT, ENOTDIR), not empty (ENOTEMPTY), or mounted (EBUSY)."""
    if is_mounted(mountpoint):
        raise HostError(f"cannot mount at {mountpoint}: it is mounted already", errno=errno.EBUSY)
    try:
        mode = os.stat(mountpoint).st_mode
        code = 0 if stat.S_ISDIR(mode) else errno.ENOTDIR
        if not code and os.listdir(mountpoint):
            code = errno.ENOTEMPTY
    except OSError as error:
        code = error.errno or errno.EIO
    if code:
        raise HostError(f"cannot mount at {mountpoint}: {os_cause(code)}", errno=code)


def mount_hint(*, allow_other: bool = False) -> str:
    """Why a mount may have failed."""
    return mount_obstacle(allow_other=allow_other) or "libfuse says why above"


def mount_obstacle(*, allow_other: bool = False) -> str:
    """Which right to mount this process has not; empty: none is known."""
    status = proc_fields("/proc/self/status")
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse: load the module fuse, or give the container that device"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no right to read and write /dev/fuse"
    if int(status["CapEff"], 16) & _CAP_SYS_ADMIN:
        return ""
    if os.geteuid() == 0:
        return "root without CAP_SYS_ADMIN, as in a container: it needs that, or unshare -Urm"
    if _fusermount() is None:
        return "fusermount is not installed: a user needs the package fuse or fuse3"
    if status.get("NoNewPrivs", "").strip() == "1":
        return "fusermount gets no rights from a process with no_new_privs"
    if allow_other:
        return "other users need user_allow_other in /etc/fuse.conf"
    return ""


def _fusermount() -> str | None:
    return shutil.which("fusermount") or shutil.which("fusermount3")


def is_mounted(mountpoint: str) -> bool:
    """Whether one of our file systems is mounted there, and nothing of others' over it. Asks the
    kernel, never the mount itself."""
    return mounts_at(mountpoint)[-1:] == [OURS]


def is_stale(mountpoint: str) -> bool:
    """Whether no process serves the mount any more. A host that lives and hangs counts as alive,
    and so does one that cannot be asked for want of a thread."""
    found: list[int] = []

    def look() -> None:
        try:
            # Not stat: the kernel may still hold the attributes of a host that has just died.
            os.statvfs(mountpoint)
        except OSError as error:
            found.append(error.errno or 0)

    thread = threading.Thread(target=look, name="livedump-look", daemon=True)
    try:
        start_thread(thread)
    except RuntimeError:  # and to ask here could be for ever
        return False
    thread.join(2.0)
    return bool(found) and found[0] in _ALREADY_GONE


def unmount(mountpoint: str) -> None:
    """`fusermount -u`, lazily when a process has a file of it open. HostError: it stays, or what
    is mounted over it is not ours."""
    program = _fusermount()
    commands = [[program, "-u"], [program, "-u", "-z"]] if program else []
    commands += [["umount", "-l"]] if os.geteuid() == 0 else []
    said = "fusermount is not installed"
    kinds = mounts_at(mountpoint)
    if OURS in kinds and kinds[-1] != OURS:
        raise HostError(
            f"cannot unmount {mountpoint}: {kinds[-1]} is mounted over it", errno=errno.EBUSY
        )
    if OURS not in kinds:
        return
    for command in commands:
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                [*command, "--", mountpoint] if command[0] != "umount" else [*command, mountpoint],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=UNMOUNT_TIMEOUT, check=False, cwd="/",
            )  # fmt: skip
            said = done.stderr.strip() or said
        if not is_mounted(mountpoint):
            return
    raise HostError(f"cannot unmount {mountpoint}: {said}", errno=errno.EBUSY)
