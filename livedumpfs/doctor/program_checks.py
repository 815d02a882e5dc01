# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of programs and packages: Python, the C core, QEMU, libvirt, readers of dumps."""

from __future__ import annotations

import re
from typing import Final

from livedumpfs.doctor.finding import Finding, Health
from livedumpfs.doctor.system import System

_OLDEST_PYTHON: Final = (3, 11)
_OLDEST_QEMU: Final = (7, 1)
_OLDEST_ATTACHED: Final = (6, 0)
_PACKAGES: Final = {
    "cachetools": "cachetools", "cffi": "cffi", "fuse": "fusepy", "msgspec": "msgspec",
    "numpy": "numpy", "elftools": "pyelftools", "unicorn": "unicorn", "xxhash": "xxhash",
    "zstandard": "zstandard",
}  # fmt: skip
"""Module -> its package."""
_READERS: Final = ("gdb", "crash", "drgn", "makedumpfile")


def python(system: System) -> Finding:
    """Python itself, and the packages that each host needs."""
    version = ".".join(map(str, system.python))
    missing = [name for module, name in _PACKAGES.items() if not system.has_module(module)]
    mend = ""
    if system.python < _OLDEST_PYTHON:
        mend = "install Python {}.{} or newer, and name it in LIVEDUMP_PYTHON".format(
            *_OLDEST_PYTHON
        )
    elif missing:
        mend = f"pip install {' '.join(missing)}"
    found = f"{version}, without {', '.join(missing)}" if missing else version
    health = Health.MISSING if mend else Health.OK
    return Finding("Python", "to run at all", health, found, mend, ("host",))


def core(system: System) -> Finding:
    """The compiled core, for this Python."""
    there = system.has_module("livedumpfs._native")
    found = "built" if there else "not built, or not for this Python"
    health = Health.OK if there else Health.MISSING
    mend = "" if there else "make"
    return Finding("C core", "arms and saves the memory", health, found, mend, ("host",))


def qemu(system: System) -> Finding:
    """Its program and version."""
    name, purpose = "QEMU", "for `livedump qemu` and `livedump attach`"
    program = system.program("qemu-system-x86_64")
    if program is None:
        mend = "apt-get install qemu-system-x86"
        found = "qemu-system-x86_64 is not on PATH"
        return Finding(name, purpose, Health.MISSING, found, mend, ("qemu",))
    said = system.version_of(program)
    number = re.search(r"version (\d+)\.(\d+)(\S*)", said)
    version = (int(number[1]), int(number[2])) if number else None
    found = f"{program}, {f'{number[1]}.{number[2]}{number[3]}' if number else 'unknown version'}"
    if version is None:
        mend = f"see what `{program} --version` says"
        return Finding(name, purpose, Health.LIMITED, found, mend, ("qemu",))
    if version < _OLDEST_QEMU:
        mend = "install QEMU {}.{} or newer".format(*_OLDEST_QEMU)
        old = "; too old for either" if version < _OLDEST_ATTACHED else "; only for attach"
        return Finding(name, purpose, Health.MISSING, found + old, mend, ("qemu",))
    return Finding(name, purpose, Health.OK, found, needed_by=("qemu",))


def kvm(system: System) -> Finding:
    """Whether guests can run by the processor's own virtualisation."""
    purpose = "for guests at full speed"
    if system.may_open("/dev/kvm"):
        return Finding("KVM", purpose, Health.OK, "/dev/kvm")
    if system.has("/dev/kvm"):
        mend = 'usermod -aG kvm "$USER", then log in again'
        return Finding("KVM", purpose, Health.LIMITED, "this user may not open /dev/kvm", mend)
    mend = "modprobe kvm_intel || modprobe kvm_amd, where the firmware allows it"
    found = "there is no /dev/kvm; QEMU emulates (TCG)"
    return Finding("KVM", purpose, Health.LIMITED, found, mend)


def libvirt(system: System) -> Finding:
    """Its daemon's socket, and its Python module."""
    name, purpose = "libvirt", "for --libvirt DOMAIN"
    sockets = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
    here = next((one for one in sockets if system.has(one)), None)
    if here is None:
        mend = "apt-get install libvirt-daemon-system"
        return Finding(name, purpose, Health.MISSING, "no libvirtd runs here", mend, ("libvirt",))
    if not system.has_module("libvirt"):
        mend = "pip install 'livedumpfs[libvirt]'"
        found = f"{here}, without Python's libvirt module"
        return Finding(name, purpose, Health.MISSING, found, mend, ("libvirt",))
    return Finding(
        name, purpose, Health.OK, f"{here}, and its Python module", needed_by=("libvirt",)
    )


def readers(system: System) -> Finding:
    """Programs that open dumps."""
    name, purpose = "readers", "to look into dumps; makedumpfile for --exclude"
    there = [one for one in _READERS if system.program(one) or system.has_module(one)]
    missing = [one for one in _READERS if one not in there]
    found = f"{', '.join(there) or 'none'}; without {', '.join(missing)}" if missing else ""
    if not missing:
        return Finding(name, purpose, Health.OK, ", ".join(there))
    debian = [one for one in missing if one != "drgn"]
    commands = [f"apt-get install {' '.join(debian)}"] if debian else []
    commands += ["pip install drgn"] if "drgn" in missing else []
    return Finding(name, purpose, Health.LIMITED, found, "; ".join(commands))


def fleet(system: System) -> Finding:
    """The packages of a cluster."""
    name, purpose = "Dask", "for `livedump fleet`"
    if system.has_module("distributed"):
        return Finding(name, purpose, Health.OK, "distributed", needed_by=("fleet",))
    mend = "pip install 'livedumpfs[fleet]'"
    return Finding(name, purpose, Health.MISSING, "not installed", mend, ("fleet",))
