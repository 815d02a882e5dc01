# SPDX-License-Identifier: GPL-2.0-or-later
"""Describes the computer of a measurement: processor, memory, kernel, load, versions, commit; but
not the host's name."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import livedumpfs

TOP = Path(__file__).resolve().parents[1]


def memory() -> dict[str, int]:
    """The values of /proc/meminfo, in bytes."""
    found = re.findall(r"^([^:]+): *(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {name: int(value) << 10 for name, value in found}


def load() -> float:
    """Mean number of runnable threads in the last minute."""
    return os.getloadavg()[0]


def describe() -> dict[str, Any]:
    """The full description, now. Sizes in bytes."""
    cpus = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpus, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": bool(re.search(r"^flags.* hypervisor\b", cpus, re.MULTILINE)),
        "memory": memory()["MemTotal"],
        "available": memory()["MemAvailable"],
        "kernel": platform.release(),
        "load": load(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gcc": _output("gcc", "-dumpfullversion"),
        "livedumpfs": livedumpfs.__version__,
        "commit": _output("git", "describe", "--always", "--dirty"),
    }


def _output(*command: str) -> str:
    """Output of a command; empty: it does not exist, or fails."""
    try:
        run = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()
