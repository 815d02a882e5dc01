# SPDX-License-Identifier: GPL-2.0-or-later
"""The wall clock jumps by years, forward and back, all through dumps: it labels the instant, and no
deadline, rate or age goes by it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TOP = FOLDER.parents[1]

SCRIPT = """
import ctypes, os, sys, time
del os.environ["LD_PRELOAD"]  # programs that this one starts have the usual clock
from pathlib import Path
from aftermath import comes_back, unharmed, wait_for
from faulty_disk import faulty_disk
from livedumpfs import Arena, LiveDump, open_dump
from livedumpfs.dump import DumpSettings
MIB, YEAR = 1 << 20, 365 * 86400
place = Path(sys.argv[1])
clock = ctypes.CDLL(None)
first, second = time.time(), time.time()
assert abs(abs(first - second) - 20 * YEAR) < 3600, "the clock is not ours"
with Arena(8 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    # The rate of the sweep.
    arena.live[:] = 1
    begun, looks = time.monotonic(), clock.wall_clock_looks()
    live.init(place / "dump", DumpSettings(sweep_rate=16 * MIB, granule=4096))
    live.start(); live.sweep()
    arena.live[7 * MIB:] = 2
    assert live.finish(300) == "consistent", live.failure
    assert time.monotonic() - begun > 0.1
    instant = live.counters().instant_wall_ns / 1e9
    assert min(abs(instant - one) for one in (first, second)) < 3600, "not even the label"
    assert clock.wall_clock_looks() > looks
    live.release()
    with open_dump(place / "dump") as dump:
        assert dump.read_arena(0, 8 * MIB).count(1) == 8 * MIB
    # An age that has not come, and one that has.
    live.init(None, DumpSettings(max_age=600)); live.start()
    time.sleep(0.3)
    assert live.state.value == "start" and live.read(0, 1) is not None
    live.release()
    live.init(None, DumpSettings(max_age=0.2)); live.start()
    wait_for(lambda: live.state.value == "uninit", lambda: live.state)
    assert "maximum age" in live.expired
    # Waiting for a drain that does not come gives up, and not at once.
    live.init(place / "slow", DumpSettings(sweep_rate=MIB // 64)); live.start(); live.sweep()
    begun = time.monotonic()
    try:
        live.finish(0.3)
        raise AssertionError("it was finished")
    except TimeoutError:
        assert time.monotonic() - begun > 0.25
# The longest wait for a slot, of a target that hangs.
disks = faulty_disk(place / "disk", 16 * MIB)
with disks as disk, Arena(8 * MIB) as arena, LiveDump(arena) as live, unharmed(live):
    arena.live[:] = 1
    live.init(disk.file, DumpSettings(pool=MIB, stall_deadline=0.3, force=True)); live.start()
    disk.fault("hang")
    live.sweep()
    begun = time.monotonic()
    arena.live[::4096] = 3
    assert time.monotonic() - begun > 0.25 and live.counters().gave_up
    live.release()
    disk.fault("none")
    wait_for(lambda: comes_back(live))
print("done")
"""


def test_a_wall_clock_that_jumps(tmp_path: Path) -> None:
    library = tmp_path / "jumping_clock.so"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(FOLDER / "jumping_clock.c")], check=True, timeout=300)
    environment = {"PYTHONPATH": f"{TOP}:{FOLDER}", "LD_PRELOAD": str(library)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


def test_nothing_but_labels_ask_for_the_wall_clock() -> None:
    """In the sources: the instant's in the core, times of files, and names."""
    core = "".join(path.read_text() for path in (TOP / "native").rglob("*.c"))
    assert core.count("clock_gettime(CLOCK_REALTIME") == 1
    others = r"\b(gettimeofday|pthread_cond_timedwait|sem_timedwait|time\(NULL\))"
    assert not re.findall(others, core)
    wall = r"\btime\.(?:time|time_ns|localtime|gmtime)\b|\bdate(?:time)?\.(?:now|today|utcnow)\("
    sources = (TOP / "livedumpfs").rglob("*.py")
    lines = {
        (path.name, line.strip())
        for path in sources
        for line in path.read_text().splitlines()
        if re.search(wall, line)
    }
    assert lines == {
        # Times of files in the mounts.
        ("contents.py", "before, now = self._said.get(key), time.time_ns()"),
        ("hosttree.py", "self._began = time.time_ns()"),
        ("hosttree.py", "self._root_changed = max(time.time_ns(), self._root_changed + 1)"),
        ("hosttree.py", "size, stored, changed = memory.size, memory.stored, time.time_ns()"),
        # The name that a file of before gets.
        ("names.py", "date = time.strftime(_FORM, time.localtime(seconds))"),
    }
