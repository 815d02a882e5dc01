# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of the kernel: its version, FUSE, userfaultfd, loop devices, clocks."""

from __future__ import annotations

import re
from typing import Final

from livedumpfs import clocks
from livedumpfs.doctor.finding import Finding, Health
from livedumpfs.doctor.system import CAP_SYS_ADMIN, CAP_SYS_PTRACE, System
from livedumpfs.units import format_duration

PROCESSORS: Final = ("x86_64", "aarch64")
_OLDEST: Final = (5, 14)
_OLDEST_SHARED: Final = {"x86_64": (5, 19), "aarch64": (6, 10)}
"""From when on userfaultfd write-protects shared memory, by processor."""
_SLOW_CLOCKS: Final = ("hpet", "acpi_pm", "jiffies")


def _version(system: System) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", system.text("/proc/sys/kernel/osrelease") or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def kernel(system: System) -> Finding:
    """Its version, and the processor."""
    release = system.text("/proc/sys/kernel/osrelease") or "unknown"
    found, mend = f"Linux {release}, {system.processor}", ""
    if system.processor not in PROCESSORS:
        mend = f"run it on {' or '.join(PROCESSORS)}: the core knows no other processor"
    elif _version(system) < _OLDEST:
        mend = "boot Linux {}.{} or newer".format(*_OLDEST)
    health = Health.MISSING if mend else Health.OK
    return Finding("kernel", "to arm the memory", health, found, mend, ("host",))


def fuse(system: System) -> Finding:
    """Whether a mount can be made."""
    missing, mend = _fuse_obstacle(system)
    health = Health.MISSING if missing else Health.OK
    found = missing or "/dev/fuse and libfuse 2"
    return Finding("FUSE", "for the mount of each host", health, found, mend, ("host",))


def _fuse_obstacle(system: System) -> tuple[str, str]:
    """What is missing for a mount, and what mends it; empty: nothing."""
    confined = bool(container(system))
    device = "start the container with --device /dev/fuse --cap-add SYS_ADMIN"
    if not system.has("/dev/fuse"):
        return "there is no /dev/fuse", device if confined else "modprobe fuse"
    if not system.may_open("/dev/fuse"):
        mend = device if confined else "chmod 0666 /dev/fuse"
        return "this user may not open /dev/fuse", mend
    if not system.has_library("fuse"):
        return "libfuse.so.2 is not installed", "apt-get install libfuse2"
    if system.capable(CAP_SYS_ADMIN):
        return "", ""
    if system.user == 0:
        return "root without CAP_SYS_ADMIN", device if confined else "unshare -Urm"
    if not (system.program("fusermount3") or system.program("fusermount")):
        return "fusermount is not installed, and this user is not root", "apt-get install fuse3"
    if system.process("NoNewPrivs") == "1":
        return (
            "fusermount gets no rights from a process with no_new_privs",
            "start it without no_new_privs (systemd: NoNewPrivileges=no)",
        )
    return "", ""


def sharing(system: System) -> Finding:
    """Whether a user that is not root can let others into its mount."""
    lines = (system.text("/etc/fuse.conf") or "").split("\n")
    allowed = system.user == 0 or "user_allow_other" in map(str.strip, lines)
    purpose = "for --group and --allow-other"
    if allowed:
        found = "root may" if system.user == 0 else "user_allow_other is set"
        return Finding("FUSE, shared", purpose, Health.OK, found)
    mend = "echo user_allow_other >> /etc/fuse.conf"
    found = "/etc/fuse.conf lacks user_allow_other"
    return Finding("FUSE, shared", purpose, Health.LIMITED, found, mend)


def userfaultfd(system: System) -> Finding:
    """Whether this user may use it for faults of the kernel, too, as QEMU's memory needs it."""
    name, purpose = "userfaultfd", "for `livedump qemu`, and --backend uffd"
    setting = system.number("/proc/sys/vm/unprivileged_userfaultfd")

    def finding(health: Health, found: str, mend: str = "") -> Finding:
        return Finding(name, purpose, health, found, mend, ("qemu",))

    if setting is None and not system.has("/dev/userfaultfd"):
        mend = "boot a kernel with CONFIG_USERFAULTFD"
        return finding(Health.MISSING, "the kernel has none", mend)
    oldest = _OLDEST_SHARED.get(system.processor, _OLDEST)
    if _version(system) < oldest:
        mend = "boot Linux {}.{} or newer".format(*oldest)
        return finding(Health.MISSING, "the kernel cannot write-protect shared memory by it", mend)
    if setting == 1:
        return finding(Health.OK, "every process may use it (vm.unprivileged_userfaultfd is 1)")
    if system.may_open("/dev/userfaultfd"):
        return finding(Health.OK, "this user may, by /dev/userfaultfd")
    if system.capable(CAP_SYS_PTRACE):
        return finding(Health.OK, "this user may, by CAP_SYS_PTRACE")
    mend = "sysctl -w vm.unprivileged_userfaultfd=1"
    return finding(Health.MISSING, "this user may use it for faults of user mode only", mend)


def attached_userfaultfd(system: System) -> Finding:
    """Whether QEMU may use it when another program, such as libvirt, has started it."""
    setting = system.number("/proc/sys/vm/unprivileged_userfaultfd")
    purpose = "for `livedump attach` to a QEMU without rights (libvirt)"
    if setting == 1:
        found = "vm.unprivileged_userfaultfd is 1"
        return Finding("userfaultfd, QEMU", purpose, Health.OK, found, needed_by=("libvirt",))
    mend = "sysctl -w vm.unprivileged_userfaultfd=1"
    found = "only a QEMU of root may use it"
    return Finding("userfaultfd, QEMU", purpose, Health.MISSING, found, mend, ("libvirt",))


def loop_devices(system: System) -> Finding:
    """Whether files can stand for block devices."""
    purpose = "for dumps to a file as a block device, and the demo"
    if not system.has("/dev/loop-control"):
        found, mend = "there is no /dev/loop-control", "modprobe loop"
    elif not system.may_open("/dev/loop-control"):
        found, mend = "only root may make one", "dump to a file instead: livedump dump FILE"
    elif not system.program("losetup"):
        found, mend = "losetup is not installed", "apt-get install mount"
    else:
        return Finding("loop devices", purpose, Health.OK, "/dev/loop-control, losetup")
    return Finding("loop devices", purpose, Health.LIMITED, found, mend)


def clock_source(system: System) -> Finding:
    """What the kernel's clock reads: each count of a stop needs it."""
    found = system.text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    purpose = "to measure the stop"
    if found in _SLOW_CLOCKS:
        mend = "boot with clocksource=tsc, or give the guest kvm-clock"
        return Finding("clock", purpose, Health.LIMITED, f"{found} is slow to read", mend)
    return Finding("clock", purpose, Health.OK, found or "unknown")


def wall_clock(system: System, read: clocks.Clock | None = None) -> Finding:
    """Whether a program keeps it right. `read`: what the kernel says of it; None: asked now."""
    purpose = "for `fleet dump --at-clock` and `start --at`"
    try:
        read = read or clocks.read_clock()
    except OSError as error:
        return _unkept(purpose, str(error), "let the seccomp filter pass adjtimex")
    if not read.synchronised:
        mend = "apt-get install chrony"
        return _unkept(purpose, "no program keeps it; `fleet dump --barrier` needs none", mend)
    found = f"kept, at most {format_duration(read.max_error_ns)} wrong"
    return Finding("wall clock", purpose, Health.OK, found)


def _unkept(purpose: str, found: str, mend: str) -> Finding:
    return Finding("wall clock", purpose, Health.LIMITED, found, mend)


def container(system: System) -> str:
    """The kind of container that this process is in; "": none is known."""
    if system.has("/run/.containerenv"):
        return "podman"
    if system.has("/.dockerenv"):
        return "docker"
    named = system.text("/run/systemd/container")
    if named:
        return named
    first = (system.text("/proc/1/environ") or "").split("\0")
    return next((one.partition("=")[2] for one in first if one.startswith("container=")), "")
