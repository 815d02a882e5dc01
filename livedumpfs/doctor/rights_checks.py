# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of what confines this process: containers, seccomp, security modules, Yama; and of its
right to run first."""

from __future__ import annotations

import re
from typing import Final

from livedumpfs.doctor.finding import Finding, Health
from livedumpfs.doctor.kernel_checks import container
from livedumpfs.doctor.system import CAP_SYS_NICE, CAP_SYS_PTRACE, System

_FILTER: Final = "2"
"""Of the field Seccomp: a filter."""


def confinement(system: System) -> Finding:
    """Containers and filters of system calls."""
    name, purpose = "confinement", "may forbid mounts and userfaultfd"
    kind = container(system)
    filtered = system.process("Seccomp") == _FILTER
    if filtered:
        found = f"{f'{kind} container' if kind else 'a service'}, with a seccomp filter"
        mend = (
            "start the container with --security-opt seccomp=unconfined"
            if kind
            else "give the service no SystemCallFilter="
        )
        return Finding(name, purpose, Health.LIMITED, found, mend)
    found = f"{kind} container, no seccomp filter" if kind else "none"
    return Finding(name, purpose, Health.OK, found)


def security_modules(system: System) -> Finding:
    """AppArmor and SELinux, as far as they hold this process."""
    name, purpose = "security modules", "may forbid the mount, and targets"
    label = (system.text("/proc/self/attr/current") or "").rstrip("\0")
    enforcing = system.text("/sys/fs/selinux/enforce") == "1"
    if enforcing and "unconfined" not in label:
        mend = "ausearch -m avc -ts recent | audit2allow -M livedump"
        return Finding(name, purpose, Health.LIMITED, f"SELinux holds it as {label}", mend)
    if label.endswith("(enforce)"):
        profile = label.rpartition(" ")[0]
        mend = (
            "start the container with --security-opt apparmor=unconfined"
            if container(system)
            else f"aa-complain {profile}"
        )
        return Finding(name, purpose, Health.LIMITED, f"AppArmor holds it: {profile}", mend)
    there = system.text("/sys/kernel/security/lsm")
    found = f"{there}; none holds this process" if there else "none holds this process"
    return Finding(name, purpose, Health.OK, found)


def tracing(system: System) -> Finding:
    """Whether the host may read a caller's memory: the path of an INIT of the kernel patches."""
    name, purpose = "Yama", "for programs of the kernel patches' ioctls, with a host of no root"
    scope = system.number("/proc/sys/kernel/yama/ptrace_scope") or 0
    if not scope or system.capable(CAP_SYS_PTRACE):
        return Finding(name, purpose, Health.OK, f"ptrace_scope {scope}, the host may")
    mend = "sysctl -w kernel.yama.ptrace_scope=0, or the typed INIT, as `livedump dump` has it"
    found = f"ptrace_scope {scope}: a host may not read a caller's memory"
    return Finding(name, purpose, Health.LIMITED, found, mend)


def real_time(system: System) -> Finding:
    """Whether threads that the machine waits for may run first."""
    name, purpose = "SCHED_FIFO", "for a short stop on busy processors"
    if system.capable(CAP_SYS_NICE):
        return Finding(name, purpose, Health.OK, "by CAP_SYS_NICE")
    limits = system.text("/proc/self/limits") or ""
    found = re.search(r"^Max realtime priority\s+(\S+)", limits, re.MULTILINE)
    if found and found[1] != "0":
        return Finding(name, purpose, Health.OK, f"by RLIMIT_RTPRIO, {found[1]}")
    mend = "setcap cap_sys_nice+ep PYTHON, or rtprio 3 in /etc/security/limits.conf"
    return Finding(name, purpose, Health.LIMITED, "this user may not", mend)
