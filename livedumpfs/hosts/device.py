# SPDX-License-Identifier: GPL-2.0-or-later
"""Which host is meant: from what a person writes, or from nothing, to its livedump file; and why
that cannot be used."""

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
"""What a mount answers when its host is gone."""
ENDING_S = 3.0
"""Seconds within which a host that ends takes its mount away, after it has stopped to answer."""
_LOOK_S = 0.05
_FILE = "livedump"


def find_device(device: str | None = None) -> str:
    """The livedump file to use: `device`, else $LIVEDUMP_DEVICE, else that of the only host that
    this user may use.

    `device` is the file itself, the directory of its mount, or a host's pid or name: its machine's,
    or the last part of its mount's path. HostError: there is none, or there are several.
    """
    chosen = device or os.environ.get(DEVICE_VARIABLE)
    return _named(chosen) if chosen else _only()


def _named(text: str) -> str:
    inside = os.path.join(text, _FILE)
    if _mount_of(inside) or os.path.lexists(inside):
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
    """As a hint, those that could have been meant."""
    hosts = [host.device for host in registry.running() if _usable(host)]
    return f"running: {', '.join(hosts)}" if hosts else "no host is running"


def _only() -> str:
    hosts = registry.running()
    usable = [host for host in hosts if _usable(host)]
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


def _usable(host: Entry) -> bool:
    """Whether this user may enter its mount and open its device. A mount of our own is not asked:
    its host may hang."""
    mount = _mount_of(host.device)
    if mount is None:
        return False
    if mount.user == os.geteuid():
        return True
    return mount.open_to_others and os.access(host.device, os.R_OK, effective_ids=True)


def _mount_of(path: str) -> Mount | None:
    """Our mount in which `path` lies at the top."""
    parent = os.path.dirname(os.path.abspath(path))
    above, last = os.path.split(parent)
    mounts = {one.point: one for one in our_mounts()}
    # A mount whose host hangs is not to be asked, as realpath() of it would.
    found = mounts.get(parent) or mounts.get(os.path.join(os.path.realpath(above), last))
    return found or mounts.get(os.path.realpath(parent))


def _whose(host: Entry) -> str:
    mount = _mount_of(host.device)
    return f"that of pid {host.pid}" + (f", user {_user(mount.user)}" if mount else "")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _let_in() -> str:
    """What opens a mount to this user."""
    if os.geteuid() == 0:
        return "run this as that user, or start the host with <allow_other>"
    return "run this as that user, or start the host with <group> for a group that you are in"


# ------------------------------------------------------------------------ failures


def refuse_other_files(fd: int, path: str) -> None:
    """HostError: what is open there cannot be a livedump file; an ioctl of ours might mean
    something to it."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise _no_device(path)


def has_ended(path: str, error: OSError) -> bool:
    """Whether the host of a file of a mount has ended in order, after that error: it takes its
    mount away, and may be about to, for which ENDING_S are waited at the most."""
    if error.errno not in DEAD:
        return False
    end = time.monotonic() + ENDING_S
    while _mount_of(path) is not None:
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_S)
    return True


def unreachable(path: str, error: OSError) -> LivedumpError:
    """Why a file of a mount cannot be used, as what OSError said of it."""
    if isinstance(error, LivedumpError):
        return error
    code = error.errno or errno.EIO
    if code == errno.ENOTTY:
        return _no_device(path)
    hint = ""
    mount = _mount_of(path)
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
