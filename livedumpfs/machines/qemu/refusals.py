# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of a QEMU command line that make a complete live dump impossible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from livedumpfs.errors import UsageError
from livedumpfs.machines.qemu.qemu_options import QemuOption, is_on

_PROCESS: Final = "another process writes the guest's memory"
KERNEL: Final = "the host's kernel writes the guest's memory behind QEMU's back (vhost)"
_DEVICE: Final = "a device of the host writes the guest's memory"
_NO_PROC: Final = "our part of QEMU would not see its own /proc there"
_NO_CHROOT: Final = "leave it out; -runas, -run-with user= and -sandbox will do"
OR_ATTACH: Final = (
    "; or start QEMU by itself, with -qmp unix:SOCKET,server=on,wait=off, and take its dumps with "
    "`livedump attach SOCKET`"
)
"""What dumps memory of any kind."""
_EMULATE: Final = "use a device that QEMU itself emulates, e.g. virtio-blk-pci or virtio-net-pci"

_OPTIONS: Final = {
    "chroot": (_NO_PROC, _NO_CHROOT),
    "daemonize": ("QEMU would run on without us", "leave it out; a service manager can detach us"),
    "incoming": (
        "its memory is filled by a migration",
        "start the guest here, or with -loadvm",
    ),
    "mem-path": (
        "its memory is not shared",
        "write -object memory-backend-file,id=ram,size=SIZE,mem-path=PATH,share=on "
        f"-machine memory-backend=ram{OR_ATTACH}",
    ),
    "preconfig": ("the guest has no memory yet", "leave it out"),
}
"""Option -> the reason, and the hint what to do."""

_DEVICES: Final = (
    ("vhost-user-", _PROCESS),
    ("vhost-vdpa", _DEVICE),
    ("vhost-", KERNEL),
    ("vfio-", _DEVICE),
    ("pvrdma", _DEVICE),
    ("x-pci-proxy-dev", _PROCESS),
)
_OBJECTS: Final = (
    ("vhost-user-backend", _PROCESS),
    ("cryptodev-vhost-user", _PROCESS),
    ("x-remote-object", _PROCESS),
    ("x-vfio-user-server", _PROCESS),
)
_NETWORKS: Final = (("vhost-user", _PROCESS), ("vhost-vdpa", _DEVICE))
_BLOCK_DRIVERS: Final = (
    ("nvme", _DEVICE),
    ("virtio-blk-vfio-pci", _DEVICE),
    ("virtio-blk-vhost-user", _PROCESS),
    ("virtio-blk-vhost-vdpa", _DEVICE),
)
_USER_SPACE_NVME: Final = "nvme://"
_NETWORK_OPTIONS: Final = frozenset({"net", "netdev", "nic"})
_BLOCK_OPTIONS: Final = frozenset({"blockdev", "drive"})


class OptionRefused(UsageError):
    """A part of a command line with which no live dump can be taken."""

    unseen: bool
    """Also without our part in QEMU: the memory is written from outside of QEMU."""


def refuse(what: str, why: str, hint: str) -> OptionRefused:
    """The error for `what`, a part of the command line."""
    found = OptionRefused(f"cannot take live dumps of QEMU with {what}: {why}", hint=hint)
    found.unseen = why in (_PROCESS, _DEVICE)
    return found


HOST_DEVICES: Final = (
    ("/dev/vhost-vdpa", _DEVICE),
    ("/dev/vhost-", KERNEL),
    ("/dev/vfio/", _DEVICE),
)
"""Start of the path of a device that QEMU has open -> why it prevents a dump; also for a device
that was added over the monitor."""


def why_not(driver: str) -> str | None:
    """Why a guest with such a device cannot be dumped; None: it can."""
    return next((why for prefix, why in _DEVICES if driver.startswith(prefix)), None)


def why_not_object(kind: str) -> str | None:
    """The same of an object that is no device."""
    return next((why for prefix, why in _OBJECTS if kind.startswith(prefix)), None)


def why_not_disk(driver: str) -> str | None:
    """The same of a block driver."""
    return dict(_BLOCK_DRIVERS).get(driver)


def refused_options(options: Sequence[QemuOption]) -> Iterator[OptionRefused]:
    """Each option with which a dump could be torn, or cannot be taken. UsageError: one that makes
    no sense."""
    for option in options:
        yield from _plain(option)
        if option.name == "device":
            yield from _kind(option, "driver", _DEVICES)
        elif option.name == "object":
            yield from _kind(option, "qom-type", _OBJECTS)
        elif option.name in _NETWORK_OPTIONS:
            yield from _network(option)
        elif option.name in _BLOCK_OPTIONS:
            yield from _block(option)


def _plain(option: QemuOption) -> Iterator[OptionRefused]:
    if option.name in _OPTIONS:
        why, hint = _OPTIONS[option.name]
        yield refuse(f"-{option.name}", why, hint)
    if option.name == "run-with" and "chroot" in option.values:
        yield refuse("-run-with chroot", _NO_PROC, _NO_CHROOT)


def _kind(
    option: QemuOption, key: str, prefixes: Sequence[tuple[str, str]]
) -> Iterator[OptionRefused]:
    kind = option.values.get(key, "")
    found = next((why for prefix, why in prefixes if kind.startswith(prefix)), None)
    if found:
        yield refuse(f"-{option.name} {kind}", found, _EMULATE)


def _network(option: QemuOption) -> Iterator[OptionRefused]:
    values = option.values
    for kind, why in _NETWORKS:
        if values.get("type") == kind:
            yield refuse(f"-{option.name} {kind}", why, "use a tap or user network")
    if values.get("type") == "passt" and is_on(values.get("vhost-user")):
        yield refuse(f"-{option.name} passt,vhost-user=on", _PROCESS, "leave vhost-user out")
    # QEMU takes a vhost-net descriptor, or vhostforce, for vhost=on.
    implied = "vhostfd" in values or "vhostfds" in values or is_on(values.get("vhostforce"))
    if is_on(values.get("vhost"), default=implied):
        yield refuse(f"-{option.name} {values.get('type', '')},vhost=on", KERNEL, "use vhost=off")


def _block(option: QemuOption) -> Iterator[OptionRefused]:
    values = option.values
    drivers = {value for key, value in values.items() if key.split(".")[-1] == "driver"}
    for driver, why in _BLOCK_DRIVERS:
        if driver in drivers:
            yield refuse(f"-{option.name} with driver {driver}", why, "let the kernel drive it")
    if any(value.startswith(_USER_SPACE_NVME) for value in values.values()):
        yield refuse(f"-{option.name} of {_USER_SPACE_NVME}", _DEVICE, "let the kernel drive it")
