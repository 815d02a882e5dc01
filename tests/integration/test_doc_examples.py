# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python examples of the documents run, and do what the text beside them says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livedumpfs import Arena, open_dump
from livedumpfs.cli.proof import prove_dump
from livedumpfs.errors import TargetError

TOP = Path(__file__).resolve().parents[2]
GIB = 1 << 30


def examples(path: str) -> list[str]:
    """Those that use the package."""
    blocks = re.findall(r"^```python\n(.*?)^```", (TOP / path).read_text(), re.M | re.S)
    return [block for block in blocks if "from livedumpfs import" in block]


def run(program: str, calls: list[str], arrays: list[Any]) -> None:
    """With the functions that the text says are the program's. The writers write in between."""

    def hold_writers() -> None:
        arrays[0][0, :3] = 1, 2, 3
        calls.append("hold")

    program = program.replace("    ...  #", "    arrays.append(state)  #")
    exec(  # it is our own text
        program,
        {"hold_writers": hold_writers, "let_go": lambda: calls.append("go"), "arrays": arrays},
    )


def test_the_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = examples("README.md")
    calls: list[str] = []
    run(program, calls, [])
    assert calls == ["hold", "go"]
    with open_dump("state.elf") as dump:
        assert (dump.verdict, prove_dump(dump).problems) == ("consistent", [])
        with Arena.load(dump) as arena:  # as the text says
            state = arena.arrays["state"]
            assert arena.size == GIB and state.shape == (10000, 10000)
            assert state.dtype == np.dtype("f8") and state[0, :3].tolist() == [1, 2, 3]


def test_the_example_of_the_readme_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ignores what save returns, and may: what is no good raises."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        monkeypatch.chdir(tmp_path)
        (program,) = examples("README.md")
        full = program.replace("    ...  #", "    state[:200] = 1.0\n    ...  #")
        assert full != program
        with pytest.raises(TargetError, match=r"state.elf.*: the dump needs .* has 4 MiB free"):
            run(full, [], [])
    finally:
        monkeypatch.chdir("/")
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=300)


@pytest.mark.parametrize("program", examples("docs/control.md"))
def test_the_examples_of_the_control_interface(program: str) -> None:
    exec(program, {})


@pytest.mark.parametrize(
    ("program", "left"),
    list(
        zip(
            examples("docs/arrays.md"),
            (["state.icechunk", "state.zarr"], ["simulation.elf"], ["x.bin"], ["state.elf"]),
            strict=True,
        )
    ),
)
def test_the_examples_of_arrays(
    program: str, left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what they leave."""
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == left
