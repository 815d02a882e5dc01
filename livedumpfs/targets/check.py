# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be a target: the kinds of files, how they are opened, and whose data is already
there."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
from typing import Final

from livedumpfs.errors import TargetError, os_cause
from livedumpfs.proc import proc_lines

_BLKROGET: Final = 0x125E
_BLKID_TIMEOUT_S: Final = 30
_BLKID_FOUND, _BLKID_NOTHING, _BLKID_SEVERAL = 0, 2, 8


def target_error(action: str, path: str, error: int, hint: str = "") -> TargetError:
    """The error "cannot <action> <path>: <the system's text for the errno>"."""
    return TargetError(f"cannot {action} {path}: {os_cause(error)}", errno=error, hint=hint)


def open_seen(look: int, flags: int) -> int:
    """Open, with this process's rights, the very file that `look` (O_PATH) is open on, even if its
    name now leads elsewhere. OSError."""
    return os.open(f"/proc/self/fd/{look}", flags)


def refuse_kind(status: os.stat_result, path: str) -> None:
    """TargetError unless it is a block device, a regular file or a pipe: EISDIR for a directory,
    EINVAL for the others."""
    mode = status.st_mode
    if stat.S_ISBLK(mode) or stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
        return
    if stat.S_ISDIR(mode):
        raise target_error("dump to", path, errno.EISDIR)
    kind = "a character device" if stat.S_ISCHR(mode) else "a socket"
    raise TargetError(
        f"cannot dump to {path}: it is {kind}",
        errno=errno.EINVAL,
        hint="name a block device, a regular file or a pipe",
    )


def refuse_mode(fd: int, path: str) -> None:
    """TargetError unless the fd can read and write at given offsets; for a pipe, write."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    access = flags & os.O_ACCMODE
    if stat.S_ISFIFO(os.fstat(fd).st_mode) and access != os.O_RDONLY and not flags & os.O_PATH:
        return
    if access != os.O_RDWR or flags & os.O_PATH:
        raise target_error(
            "write to", path, errno.EACCES, "it must be open for reading and writing"
        )
    wrong = flags & (os.O_APPEND | os.O_DIRECT)
    if wrong:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~wrong)


def refuse_read_only(fd: int, path: str) -> None:
    """TargetError EROFS when the block device is read-only; some kernels open it for writing all
    the same."""
    answer = fcntl.ioctl(fd, _BLKROGET, bytes(4))
    if int.from_bytes(answer, sys.byteorder):
        raise target_error("write to", path, errno.EROFS)


def find_signature(fd: int, path: str) -> str | None:
    """What blkid (util-linux) finds on the block device: "ext4 file system", or None for nothing.

    TargetError: blkid is missing, hangs or fails, so the content is not known.
    """
    blkid = shutil.which("blkid", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if blkid is None:
        raise TargetError(
            f"cannot check {path} for a file system: blkid is not installed",
            errno=errno.ENOENT,
            hint="install util-linux, or use <force>",
        )
    command = [blkid, "-p", "-o", "export", f"/dev/fd/{fd}"]
    try:
        run = subprocess.run(
            command, pass_fds=(fd,), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=_BLKID_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TargetError(
            f"cannot check {path} for a file system: {error}",
            errno=errno.EIO,
            hint="or use <force>",
        ) from error
    if run.returncode == _BLKID_NOTHING:
        return None
    if run.returncode == _BLKID_SEVERAL:
        return "several file systems or partition tables"
    if run.returncode != _BLKID_FOUND:
        cause = run.stderr.strip() or f"blkid ended with {run.returncode}"
        raise TargetError(
            f"cannot check {path} for a file system: {cause}",
            errno=errno.EIO,
            hint="or use <force>",
        )
    return _signature(run.stdout)


def _signature(export: str) -> str | None:
    values = dict(line.split("=", 1) for line in export.splitlines() if "=" in line)
    if "TYPE" in values:
        return f"{values['TYPE']} file system"
    if "PTTYPE" in values:
        return f"{values['PTTYPE']} partition table"
    return "a signature of some kind" if "USAGE" in values else None


def is_mounted(device: int) -> bool:
    """Whether the block device with that number is mounted somewhere in this mount namespace."""
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = proc_lines("/proc/self/mountinfo")
    return any(line.split(" ")[2] == number for line in mounts)
