# SPDX-License-Identifier: GPL-2.0-or-later
"""From a user's DEVICE argument, or none, to the livedump file of a host; and the reason when that
file cannot be used."""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import stat
import time

from livedumpfs.errors import HostError, LivedumpError, os_cause
from livedumpfs.hosts import registry
from livedumpfs.hosts.mounted import Mount, our_mounts
from livedumpfs.hosts.registry import Entry

DEVICE_VARIABLE = "LIVEDUMP_DEVICE"
DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)
"""Errors of a mount whose host is gone."""
ENDING_S = 3.0
"""Seconds within which a host that ends takes its mount away, after it has stopped to answer."""
_LOOK_S = 0.05
_FILE = "livedump"


def find_device(device: str | None = None) -> str:
    """The livedump file to use: `device`, else $LIVEDUMP_DEVICE, else the one of the only host that
    this user may use.

    `device` is the file itself, the directory of its mount, the host's pid, the name of its
    machine, or the last part of its mount's path. HostError: there is none, or there are several.
    """
    chosen = device or os.environ.get(DEVICE_VARIABLE)
    return _named(chosen) if chosen else _only()


def _named(text: str) -> str:
    inside = os.path.join(text, _FILE)
    if mount_of(inside) or os.path.lexists(inside):
        return inside
    if os.path.isdir(text):
        raise HostError(f"{text} is not the mount of a host", errno=errno.ENOENT, hint=_running())
    if "/" in text or os.path.lexists(text):
        return text
    hosts = [host for host in registry.running() if text in (str(host.pid), host.name)]
    hosts = hosts or [host for host in registry.running() if text == host.machine]
    if len(hosts) > 1:
        raise _several(hosts, f"are called {text}")
    if not hosts:
        raise HostError(
            f"{text} is neither a file nor a host's pid or name",
            errno=errno.ENOENT,
            hint=_running(),
        )
    return hosts[0].device


def _running() -> str:
    """The hosts that could have been meant, as a hint."""
    hosts = [host.device for host in registry.running() if may_use(host)]
    return f"running: {', '.join(hosts)}" if hosts else "no host is running"


def _only() -> str:
    hosts = registry.running()
    usable = [host for host in hosts if may_use(host)]
    if len(usable) == 1:
        return usable[0].device
    if usable:
        raise _several(usable, "are running")
    if not hosts:
        raise HostError(
            "no host is running", errno=errno.ENOENT, hint="start one with `livedump host`"
        )
    raise HostError(
        f"no host is running that this user may use, only {', '.join(map(_whose, hosts))}",
        errno=errno.EACCES,
        hint=_let_in(),
    )


def _several(hosts: list[Entry], what: str) -> HostError:
    return HostError(
        f"{len(hosts)} hosts {what}: {', '.join(host.device for host in hosts)}",
        errno=errno.EINVAL,
        hint=f"choose one with <device> or {DEVICE_VARIABLE}",
    )


# ------------------------------------------------------------------------- rights


def may_use(host: Entry) -> bool:
    """Whether this user may enter the host's mount and open its device. For a mount of this user
    the answer is yes without a system call on it, because its host may hang."""
    mount = mount_of(host.device)
    if mount is None:
        return False
    if mount.user == os.geteuid():
        return True
    return mount.open_to_others and os.access(host.device, os.R_OK, effective_ids=True)


def mount_of(path: str) -> Mount | None:
    """The livedumpfs mount that has `path` in its top directory."""
    parent = os.path.dirname(os.path.abspath(path))
    above, last = os.path.split(parent)
    mounts = {one.point: one for one in our_mounts()}
    # realpath() is not called on the mount point itself: it would block when the host hangs.
    found = mounts.get(parent) or mounts.get(os.path.join(os.path.realpath(above), last))
    return found or mounts.get(os.path.realpath(parent))


def _whose(host: Entry) -> str:
    mount = mount_of(host.device)
    return f"that of pid {host.pid}" + (f", user {_user(mount.user)}" if mount else "")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _let_in() -> str:
    """The hint how this user gets access to a mount."""
    if os.geteuid() == 0:
        return "run this as that user, or start the host with <allow_other>"
    return "run this as that user, or start the host with <group> for a group that you are in"


# ------------------------------------------------------------------------ failures


def refuse_other_files(fd: int, path: str) -> None:
    """HostError: the open file cannot be a livedump file. Another driver could take our ioctl for
    one of its own."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise _no_device(path)


def has_ended(path: str, error: OSError) -> bool:
    """Whether the host of a file of a mount has ended in order, after that error: it takes its
    mount away, and may be about to, for which ENDING_S are waited at the most."""
    if error.errno not in DEAD:
        return False
    end = time.monotonic() + ENDING_S
    while mount_of(path) is not None:
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_S)
    return True


def unreachable(path: str, error: OSError) -> LivedumpError:
    """The error for a file of a mount that cannot be used, from the OSError that it gave."""
    if isinstance(error, LivedumpError):
        return error
    code = error.errno or errno.EIO
    if code == errno.ENOTTY:
        return _no_device(path)
    hint = ""
    mount = mount_of(path)
    if code in DEAD and mount is None:  # a host that ends in order takes its mount away
        hint = "its host has ended"
    elif code in DEAD:
        folder = shlex.quote(os.path.dirname(path))
        hint = f"its host is dead; clean up with `fusermount -u {folder}`"
    elif code == errno.ENOENT:
        hint = "is a host mounted there?"
    elif code == errno.EACCES and mount and mount.user != os.geteuid():
        hint = f"it is the host of user {_user(mount.user)}: {_let_in()}"
    return HostError(f"cannot use {path}: {os_cause(code)}", errno=code, hint=hint)


def _no_device(path: str) -> HostError:
    return HostError(
        f"{path} is not a host's livedump file",
        errno=errno.ENOTTY,
        hint="name that, its mount's directory, or the host's pid or name",
    )
