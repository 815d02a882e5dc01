# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of a QEMU command line that make a complete live dump impossible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from livedumpfs.errors import UsageError
from livedumpfs.machines.qemu.qemu_options import QemuOption, is_on

_PROCESS: Final = "another process writes the guest's memory"
_KERNEL: Final = "the host's kernel writes the guest's memory behind QEMU's back (vhost)"
_DEVICE: Final = "a device of the host writes the guest's memory"
_NO_PROC: Final = "our part of QEMU would not see its own /proc there"
_NO_CHROOT: Final = "leave it out; -runas and -sandbox will do"
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
        "-machine memory-backend=ram",
    ),
    "preconfig": ("the guest has no memory yet", "leave it out"),
}
"""Option -> the reason, and the hint what to do."""

_DEVICES: Final = (
    ("vhost-user-", _PROCESS),
    ("vhost-", _KERNEL),
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


def refuse(what: str, why: str, hint: str) -> UsageError:
    """The error for `what`, a part of the command line."""
    return UsageError(f"cannot take live dumps of QEMU with {what}: {why}", hint=hint)


HOST_DEVICES: Final = (
    ("/dev/vhost-vdpa", _DEVICE),
    ("/dev/vhost-", _KERNEL),
    ("/dev/vfio/", _DEVICE),
)
"""Start of the path of a device that QEMU has open -> why it prevents a dump; also for a device
that was added over the monitor."""


def why_not(driver: str) -> str | None:
    """Why a guest with such a device cannot be dumped; None: it can."""
    return next((why for prefix, why in _DEVICES if driver.startswith(prefix)), None)


def check_options(options: Sequence[QemuOption]) -> None:
    """UsageError: the first option with which a dump could be torn, or cannot be taken."""
    for option in options:
        _check_plain(option)
        if option.name == "device":
            _check_kind(option, "driver", _DEVICES)
        elif option.name == "object":
            _check_kind(option, "qom-type", _OBJECTS)
        elif option.name in _NETWORK_OPTIONS:
            _check_network(option)
        elif option.name in _BLOCK_OPTIONS:
            _check_block(option)


def _check_plain(option: QemuOption) -> None:
    if option.name in _OPTIONS:
        why, hint = _OPTIONS[option.name]
        raise refuse(f"-{option.name}", why, hint)
    if option.name == "run-with" and "chroot" in option.values:
        raise refuse("-run-with chroot", _NO_PROC, _NO_CHROOT)


def _check_kind(option: QemuOption, key: str, prefixes: Sequence[tuple[str, str]]) -> None:
    kind = option.values.get(key, "")
    for prefix, why in prefixes:
        if kind.startswith(prefix):
            raise refuse(f"-{option.name} {kind}", why, _EMULATE)


def _check_network(option: QemuOption) -> None:
    values = option.values
    for kind, why in _NETWORKS:
        if values.get("type") == kind:
            raise refuse(f"-{option.name} {kind}", why, "use a tap or user network")
    # QEMU takes a vhost-net descriptor, or vhostforce, for vhost=on.
    implied = "vhostfd" in values or "vhostfds" in values or is_on(values.get("vhostforce"))
    if is_on(values.get("vhost"), default=implied):
        raise refuse(f"-{option.name} {values.get('type', '')},vhost=on", _KERNEL, "use vhost=off")


def _check_block(option: QemuOption) -> None:
    values = option.values
    drivers = {value for key, value in values.items() if key.split(".")[-1] == "driver"}
    for driver, why in _BLOCK_DRIVERS:
        if driver in drivers:
            raise refuse(f"-{option.name} with driver {driver}", why, "let the kernel drive it")
    if any(value.startswith(_USER_SPACE_NVME) for value in values.values()):
        raise refuse(f"-{option.name} of {_USER_SPACE_NVME}", _DEVICE, "let the kernel drive it")
