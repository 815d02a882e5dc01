# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a guest stands still on busy processors, with and without real-time priority
(SCHED_FIFO) from the request to stop until all vCPUs run again.

Each case runs in its own process; each dump ends right after the stop.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from apart import apart
from measurement import Bar, Effort, Measurement
from ways import quantile

from livedumpfs import DumpSettings, LiveDump
from livedumpfs.machines import UnicornMachine

RAM = 256 << 20
READY = 300.0
HOGS = 2
"""Busy programs for each processor."""
SETTINGS = DumpSettings(pool=4 << 20, quiesce_deadline=60.0)
FEWER = 10.0
"""With the priority the median must be shorter by this factor."""
CAPABILITY_VERSION_3 = 0x20080522
CAP_SYS_NICE = 23
PARTS = ("quiesce_ns", "arm_ns", "resume_ns", "pause_ns")


class _Capabilities(ctypes.Structure):
    """Structures of capget(2): header, then effective, permitted and inheritable, each in two
    halves."""

    _fields_ = (
        ("version", ctypes.c_uint32),
        ("pid", ctypes.c_int),
        ("sets", ctypes.c_uint32 * 6),
    )


def give_up_priority() -> None:
    """Give up CAP_SYS_NICE and RLIMIT_RTPRIO for the rest of this process. OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    mine = _Capabilities(CAPABILITY_VERSION_3, 0)
    sets = ctypes.byref(mine, _Capabilities.sets.offset)
    if libc.capget(ctypes.byref(mine), sets):
        raise OSError(ctypes.get_errno(), "capget")
    mine.sets[0] &= ~(1 << CAP_SYS_NICE)
    if libc.capset(ctypes.byref(mine), sets):
        raise OSError(ctypes.get_errno(), "capset")
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keep every processor busy within the block."""
    with contextlib.ExitStack() as stack:
        for _ in range(HOGS * len(os.sched_getaffinity(0))):
            hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.enter_context(hog)
            stack.callback(hog.kill)
        yield


def stops(vcpus: int, count: int, first: bool, others: bool) -> list[dict[str, int]]:
    """Nanoseconds of each stop and its parts. `first`: with the priority; `others`: on busy
    processors."""
    if not first:
        give_up_priority()
    found = []
    with UnicornMachine(RAM, vcpus) as machine, LiveDump(machine) as live:
        machine.wait_ready(READY)
        with busy() if others else contextlib.nullcontext():
            for _ in range(count):
                live.init(None, SETTINGS)
                time.sleep(0.02)
                live.start()
                counters = live.counters()
                found.append({part: getattr(counters, part) for part in PARTS})
                live.release()
    return found


def measure(effort: Effort) -> Measurement:
    """The built-in guest with 1 and 2 vCPUs: idle, busy, and busy without the right."""
    found = Measurement(
        "busy",
        "Stop of a guest beside other work, microseconds",
        ["processors", "right", "vCPUs", "dumps", "quiesce", "arm", "resume", "p50", "p99", "max"],
    )
    for vcpus in (1,) if effort.quick else (1, 2):
        middle: dict[tuple[bool, bool], float] = {}
        for first, others in ((True, False), (True, True), (False, True)):
            samples = apart(stops, vcpus, effort.repeats(50, 10), first, others)
            pauses = [float(s["pause_ns"]) for s in samples]
            middle[first, others] = quantile(pauses, 0.5)
            parts = [quantile([s[part] for s in samples], 0.5) for part in PARTS[:3]]
            figures = [*parts, *(quantile(pauses, share) for share in (0.5, 0.99, 1.0))]
            found.rows.append(
                [
                    f"{HOGS} busy programs each" if others else "idle",
                    "SCHED_FIFO" if first else "none",
                    str(vcpus),
                    str(len(samples)),
                    *(f"{one / 1000:,.0f}" for one in figures),
                ]
            )
            found.samples.append({"vcpus": vcpus, "first": first, "busy": others, "stops": samples})
        ratio = middle[False, True] / middle[True, True]
        text = f"stop on busy processors, vCPUs: {vcpus}, without the right / with it"
        found.bars.append(Bar(text, ratio, FEWER))
    return found
