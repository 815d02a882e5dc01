# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo does what it says, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from livedumpfs.proc import proc_lines, proc_text

TOP = Path(__file__).resolve().parents[2]
DEADLINE = 600.0
LONG = bool(os.environ.get("LIVEDUMP_KILLS"))
long = pytest.mark.skipif(not LONG, reason="`make kill-points`; other moments with these signals")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the demo sets up a loop device: needs root"),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="the demo needs /dev/fuse"),
    pytest.mark.skipif(shutil.which("gdb") is None, reason="the demo needs gdb"),
]


def begin(folder: Path) -> subprocess.Popen[str]:
    env = {
        **os.environ, "LIVEDUMP_PYTHON": sys.executable, "RAM": "16M", "VCPUS": "1",
        "TMPDIR": str(folder),
    }  # fmt: skip
    env.pop("LIVEDUMP_DEVICE", None)
    return subprocess.Popen(
        [TOP / "scripts" / "demo"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left_behind(folder: Path) -> list[str]:
    """Mounts, loop devices and files that belong to the demo in `folder`."""
    mounts = proc_lines("/proc/self/mountinfo")
    loops = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout.splitlines()
    names = [str(path) for path in folder.iterdir()]
    return [line for line in (*mounts, *loops) if str(folder) in line] + names


def processes_of(session: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(proc_text(stat.parent / "cmdline").replace("\0", " "))
    return found


def test_the_demo(linux_files: None, tmp_path: Path) -> None:
    del linux_files
    demo = begin(tmp_path)
    out, _ = demo.communicate(timeout=DEADLINE)
    assert demo.returncode == 0, out
    assert "machine stopped for" in out
    assert "verdict   consistent" in out
    assert "faults" in out
    assert "#0" in out, "gdb showed no backtrace"
    assert "$1 = {" in out, "gdb printed no global"
    # The ledger's dump, what `verify` says of it, and the dump of Linux.
    assert out.count("verdict   consistent") == 3, out
    assert "sleeper-4" in out, "no task of Linux"
    assert re.search(r"^\[ +\d+\.\d{6}\] load: \w+ \d+ right$", out, re.MULTILINE), "no log"
    assert re.search(r"^answer: 42$", out, re.MULTILINE), "nothing could be typed"
    assert "nothing is left mounted" in out
    assert left_behind(tmp_path) == []
    assert processes_of(demo.pid) == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("A block device", signal.SIGTERM),
        ("A live dump of it", signal.SIGINT),
        pytest.param("gdb reads it", signal.SIGTERM, marks=long),
        pytest.param("gdb reads it", signal.SIGINT, marks=long),
        ("Linux, in the process", signal.SIGTERM),
    ],
)
def test_an_interrupted_demo(
    linux_files: None, moment: str, number: signal.Signals, tmp_path: Path
) -> None:
    del linux_files
    demo = begin(tmp_path)
    assert demo.stdout is not None
    seen = ""
    for line in demo.stdout:
        seen += line
        if moment in line:
            break
    if number == signal.SIGINT:
        os.killpg(demo.pid, number)  # as a terminal does
    else:
        os.kill(demo.pid, number)
    out, _ = demo.communicate(timeout=DEADLINE)
    assert demo.returncode == 128 + number, seen + out
    assert left_behind(tmp_path) == []
    end = time.monotonic() + DEADLINE
    while processes_of(demo.pid):
        assert time.monotonic() < end, processes_of(demo.pid)
        time.sleep(0.05)
