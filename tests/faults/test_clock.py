# SPDX-License-Identifier: GPL-2.0-or-later
"""The wall clock jumps by years, forward and back, all through dumps: it labels the instant, and no
deadline, rate or age goes by it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.fixtures.patience import patient_path
from tests.fixtures.program_files import program_command

FOLDER = Path(__file__).resolve().parent
TOP = FOLDER.parents[1]


def test_a_wall_clock_that_jumps(tmp_path: Path) -> None:
    library = tmp_path / "jumping_clock.so"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(FOLDER / "jumping_clock.c")], check=True, timeout=300)
    environment = {"PYTHONPATH": patient_path(FOLDER), "LD_PRELOAD": str(library)}
    done = subprocess.run(
        program_command(__file__, "jumping_clock.py", str(tmp_path)),
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done


def test_nothing_but_labels_ask_for_the_wall_clock() -> None:
    """In the sources: the instant's in the core, the clock that a guest reads, times of files, and
    names."""
    texts = {path.name: path.read_text() for path in (TOP / "native").rglob("*.c")}
    core = "".join(texts.values())
    asking = {name: text.count("clock_gettime(CLOCK_REALTIME") for name, text in texts.items()}
    assert {name: n for name, n in asking.items() if n} == {"wall.c": 1, "serial.c": 1}
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
        # START at a time that hosts have agreed on, and how long that is away.
        ("appointment.py", "left_s = (self.at_ns - time.time_ns()) / 1e9"),
        ("appointment.py", "late = time.time_ns() - self.at_ns"),
        ("appointment.py", "if time.time_ns() < self.at_ns:"),
        (
            "appointment.py",
            "while (left := self.at_ns - time.time_ns() - _EXACT_NS) > 0:",
        ),
        ("by_dump_id.py", "ahead = at_ns / 1e9 - time.time()"),
        ("barrier_command.py", "return time.time_ns() + int(span(text[1:]) * 1e9)"),
        # The instant of a snapshot that QEMU takes, which its events label.
        (
            "attached_machine.py",
            "mono = times.stopped_wall_ns - time.time_ns() + time.monotonic_ns()",
        ),
        ("snapshot_job.py", "begun, begun_wall_ns = time.monotonic(), time.time_ns()"),
        # What members of a fleet tell each other of their clocks, and agree on.
        ("offsets.py", "return time.time_ns()"),
        ("offsets.py", "wall = time.time_ns()"),
        # The name of a dump in a store.
        ("receive.py", "moment = time.gmtime(record.instant_ns // 10**9)"),
        # The name that a file of before gets.
        ("names.py", "date = time.strftime(_FORM, time.localtime(seconds))"),
    }
