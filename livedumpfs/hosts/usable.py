# SPDX-License-Identifier: GPL-2.0-or-later
"""The hosts of this computer that this user may control."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from livedumpfs.errors import HostError
from livedumpfs.hosts import registry
from livedumpfs.hosts.device import find_device, may_use, mount_of


@dataclass(frozen=True)
class HostHere:
    """A host."""

    device: str
    """Its livedump file."""
    name: str
    machine: str
    """Kind of machine."""
    mount_id: str
    """Of its mount, "MAJOR:MINOR": no other mount of this kernel has it, in whatever namespace."""


def usable_hosts(named: Sequence[str] = ()) -> list[HostHere]:
    """Those of the registry, by their paths; or the named ones, as find_device takes them.
    HostError: one of these is not there, or is no host."""
    if named:
        return [_here(find_device(one)) for one in named]
    found = [_here(entry.device) for entry in registry.running() if may_use(entry)]
    return sorted(found, key=lambda one: one.device)


def _here(device: str) -> HostHere:
    mount = mount_of(device)
    if mount is None:
        raise HostError(f"{device} is not in the mount of a host", errno=errno.ENOENT)
    known = [one.machine for one in registry.running() if one.device == device]
    name = os.path.basename(os.path.dirname(os.path.abspath(device)))
    return HostHere(device, name, known[0] if known else "", mount.number)
