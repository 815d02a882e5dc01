# SPDX-License-Identifier: GPL-2.0-or-later
"""C programs against the C core itself, without Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
MACHINE_FILES = {"console.c", "vcpu_unicorn.c"}


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core as a static library."""
    place = tmp_path_factory.mktemp("core")
    sources = [p for p in (TOP / "native").glob("*.c") if p.name not in MACHINE_FILES]
    command = ["gcc", "-std=gnu11", "-O2", "-c", *map(str, sorted(sources))]
    subprocess.run(command, cwd=place, check=True, timeout=120)
    objects = sorted(map(str, place.glob("*.o")))
    subprocess.run(["ar", "rcs", "libldfs.a", *objects], cwd=place, check=True, timeout=60)
    return place


@pytest.mark.parametrize(("program", "prints"), [("signal_in_writable", "hit\n")])
def test_program(core: Path, program: str, prints: str) -> None:
    source = TOP / "tests" / "native" / f"{program}.c"
    include = TOP / "native"
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    command += [str(source), "-o", program, "-L.", "-lldfs", "-pthread"]
    subprocess.run(command, cwd=core, check=True, timeout=60)
    done = subprocess.run(
        [str(core / program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, prints), done
