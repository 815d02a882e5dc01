# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a QEMU guest stands still beside programs that never sleep, with and without the right
to run its threads first (SCHED_FIFO) for the time of the stop.

The guest stores to all of its memory, round after round (firmware.py). The stop is that of the
guest: from `stop` to the answer to `cont`. Each case runs in its own process, with a QEMU of its
own; idle and busy rounds take turns.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from accelerator import why_no_kvm
from apart import apart
from firmware import build
from measure_busy import give_up_priority
from measurement import Bar, Effort, Measurement
from ways import quantile

from livedumpfs import DumpSettings, LiveDump
from livedumpfs.machines.qemu import QemuMachine

QEMU = "qemu-system-x86_64"
LOOPS = 5
SETTINGS = DumpSettings(pool=4 << 20, quiesce_deadline=60.0)
SETTLE_S = 0.3
"""For new loops to get to their share of the processors."""
MORE_MS = 3.0
"""With the right p90 beside the loops is at most twice that of an idle computer, and so much."""


@contextlib.contextmanager
def loops(count: int) -> Iterator[None]:
    """So many programs that never sleep, within the block."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.enter_context(loop)
            stack.callback(loop.kill)
        time.sleep(SETTLE_S)
        yield


def one_stop(live: LiveDump) -> float:
    """Milliseconds."""
    live.init(None, SETTINGS)
    time.sleep(0.02)
    live.start()
    pause_ns = live.counters().pause_ns
    live.release()
    return pause_ns / 1e6


def stops(vcpus: int, rounds: int, count: int, first: bool) -> dict[str, list[float]]:
    """Milliseconds of each stop, "idle" and "busy": `rounds` times `count` of each. `first`: with
    the right."""
    if not first:
        give_up_priority()
    found: dict[str, list[float]] = {"idle": [], "busy": []}
    with tempfile.TemporaryDirectory() as folder:
        kind = "tcg" if why_no_kvm() else "kvm"
        guest = [QEMU, "-accel", kind, "-display", "none", "-nodefaults", "-m", "256"]
        guest += ["-smp", str(vcpus), "-bios", str(build(Path(folder)))]
        with QemuMachine(guest) as machine, LiveDump(machine) as live:
            machine.start()
            one_stop(live)
            for _ in range(rounds):
                found["idle"] += [one_stop(live) for _ in range(count)]
                with loops(LOOPS):
                    found["busy"] += [one_stop(live) for _ in range(count)]
    return found


def measure(effort: Effort) -> Measurement:
    """1 and 2 vCPUs, idle and beside five loops, with the right and without."""
    found = Measurement(
        "guest_stop",
        f"Stop of a QEMU guest beside {LOOPS} programs that never sleep, milliseconds",
        ["processors", "right", "vCPUs", "dumps", "p50", "p90", "max"],
    )
    if shutil.which(QEMU) is None:
        found.notes.append(f"Not measured: there is no {QEMU} here.")
        return found
    for vcpus in (1,) if effort.quick else (1, 2):
        for first in (True, False):
            samples = apart(stops, vcpus, effort.repeats(3, 1), effort.repeats(15, 5), first)
            p90 = {}
            for case, values in samples.items():
                p50, p90[case], most = (quantile(values, share) for share in (0.5, 0.9, 1.0))
                right = "SCHED_FIFO" if first else "none"
                figures = [f"{one:.2f}" for one in (p50, p90[case], most)]
                found.rows.append([case, right, str(vcpus), str(len(values)), *figures])
            found.samples.append({"vcpus": vcpus, "first": first, "stops": samples})
            if first:
                text = f"p90 beside loops / (2 x idle + {MORE_MS:g} ms), vCPUs: {vcpus}"
                ratio = p90["busy"] / (2 * p90["idle"] + MORE_MS)
                found.bars.append(Bar(text, ratio, 1.0, at_least=False))
    return found
