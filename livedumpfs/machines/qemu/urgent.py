# SPDX-License-Identifier: GPL-2.0-or-later
"""Urgent: lets the threads that a stopped guest waits for run before all ordinary threads, here and
in QEMU. docs/concurrency.md, "Which thread runs first", says which, and why in these ranks."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Collection, Iterable
from typing import Final

from livedumpfs.proc import proc_fields

_RAISED: Final = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
"""A thread that such a thread starts is an ordinary one. The shim knows by this which threads it
has to lower (native/shim/urgent.c)."""
_FIRST: Final = 3
_PYTHON: Final = 2
"""Other threads of Python in this process: one of them may hold the interpreter's lock, for which
the first ones wait."""
_VCPU: Final = 1
"""Below all that must come to their turn to stop the vCPUs: those may run guest code still, which
never sleeps."""
_CAP_SYS_NICE: Final = 23
_SWITCH_S: Final = 2e-4
"""sys.setswitchinterval: a thread that computes in Python gives the lock up after so long."""
_MOST: Final = 4096
"""LDFS_SHIM_THREADS: threads of a QEMU for which the shim has room."""


class Urgent:
    """The threads of one stop. Threads with a scheduling policy that was chosen for them stay as
    they are. Without CAP_SYS_NICE nothing changes."""

    def __init__(self, pid: int, vcpus: Collection[int], ours: Iterable[int]) -> None:
        """Nothing is raised yet. `pid`: QEMU's; `vcpus`: thread ids of its vCPUs; `ours`: threads
        of this process, beside the caller."""
        found = _ordinary_threads(pid) if _may_raise() and _has_our_ids(pid) else []
        if len(found) > _MOST or not set(vcpus) <= set(_threads(pid)):
            found = []  # one that is a vCPU could pass for another thread
        self.theirs = found
        """Thread ids in QEMU that may be raised until `end`."""
        self._vcpus = [one for one in self.theirs if one in vcpus]
        self._others = [one for one in self.theirs if one not in vcpus]
        first = {threading.get_native_id(), *ours} if self.theirs else set()
        python = {one.native_id for one in threading.enumerate()} if self.theirs else set()
        self._ours = [one for one in first if _is_ordinary(one)]
        self._python = [one for one in python - first if one and _is_ordinary(one)]
        self._begun = False

    def leave(self) -> None:
        """Before `begin`: raise none at all. None but us could lower them again."""
        self.theirs = []

    def begin(self) -> None:
        """All but the vCPUs: their guest code still runs."""
        if not self.theirs or self._begun:
            return
        self._begun = True
        _QUICK.begin()
        for one in self._python:
            _set(one, _RAISED, _PYTHON)
        for one in (*self._ours, *self._others):
            _set(one, _RAISED, _FIRST)

    def hurry_vcpus(self) -> None:
        """They have been told to stop. Does nothing outside of `begin` and `end`."""
        for one in self._vcpus if self._begun else ():
            _set(one, _RAISED, _VCPU)

    def calm_vcpus(self) -> None:
        """They stand, or do not come."""
        _lower(self._vcpus)

    def end(self) -> None:
        """All are ordinary threads again. May be called twice, and by any thread."""
        if self._begun:
            self._begun = False
            _lower((*self.theirs, *self._python, *self._ours))
            _QUICK.end()


class _QuickSwitching:
    """Of threads that compute in Python, while any guest of this process is being stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = 0.0

    def begin(self) -> None:
        with self._lock:
            if not self._count:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, _SWITCH_S))
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                sys.setswitchinterval(self._before)


_QUICK: Final = _QuickSwitching()


def _may_raise() -> bool:
    """Whether this process has CAP_SYS_NICE. RLIMIT_RTPRIO alone would not do: with it a thread
    could be raised, but not be made again what it was."""
    with contextlib.suppress(OSError):
        capabilities = proc_fields("/proc/thread-self/status").get("CapEff", "0")
        return bool(int(capabilities, 16) >> _CAP_SYS_NICE & 1)
    return False


def _has_our_ids(pid: int) -> bool:
    """Whether thread ids mean the same to that process: it is in this one's pid namespace."""
    with contextlib.suppress(OSError):
        return os.path.samefile(f"/proc/{pid}/ns/pid", "/proc/self/ns/pid")
    return False


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    return []


def _ordinary_threads(pid: int) -> list[int]:
    return [one for one in _threads(pid) if _is_ordinary(one)]


def _is_ordinary(thread: int) -> bool:
    with contextlib.suppress(OSError):
        return os.sched_getscheduler(thread) == os.SCHED_OTHER
    return False


def _lower(threads: Iterable[int]) -> None:
    for one in threads:
        with contextlib.suppress(OSError):  # it has ended
            # Ours, or ours as a shim without the right has lowered it.
            if os.sched_getscheduler(one) & os.SCHED_RESET_ON_FORK:
                _make_ordinary(one)


def _make_ordinary(thread: int) -> None:
    """The capability may be one of a user namespace alone: then the flag stays, which does no
    harm."""
    try:
        os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    except PermissionError:
        _set(thread, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, 0)


def _set(thread: int, policy: int, priority: int) -> None:
    with contextlib.suppress(OSError):  # it has ended; or a rule of the system forbids it
        os.sched_setscheduler(thread, policy, os.sched_param(priority))
