# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs of examples/ run, and do what they say."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livedumpfs import Arena, open_arrays
from livedumpfs.stores import open_store

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = ("--width", "64", "--layers", "2", "--batch", "8", "--every", "5", "--json")


def train(*words: str | Path) -> Any:
    """What was measured."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "training.py", *SMALL, *words],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("way", "name"), [("Zarr", "state.zarr"), ("elf", "state.elf")])
def test_a_training_loop_resumes_from_its_checkpoint(way: str, name: str, tmp_path: Path) -> None:
    """To the very bytes that a run without checkpoints comes to: the checkpoint is of one step."""
    plain = train("--steps", "60", "--way", "none")
    saved = train("--steps", "42", "--way", f"livedumpfs, {way}", "--keep", tmp_path)
    assert saved["checkpoints"] == 8 and saved["digest"] != plain["digest"]
    with Arena.load(tmp_path / name) as arena:
        assert 40 <= arena.arrays["steps"][0] <= 42
    resumed = train("--steps", "60", "--way", "none", "--resume", tmp_path / name)
    assert resumed["steps"] < 21 and resumed["digest"] == plain["digest"]


def test_its_checkpoint_opens_by_name(tmp_path: Path) -> None:
    train("--steps", "6", "--way", "livedumpfs, Icechunk", "--keep", tmp_path)
    with open_arrays(tmp_path / "state.icechunk") as found:
        assert found.verdict == "consistent"
        assert found.array("layer1.weight.exp_avg").shape == (64, 64)


def example(name: str, *words: str | Path) -> str:
    """What it prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *words],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    return done.stdout


def test_threads_in_steps_are_dumped_between_them(tmp_path: Path) -> None:
    assert re.fullmatch(
        r"a dump of steps \[\d+, \d+\], all of them whole\n", example("simulation.py", tmp_path)
    )


def test_system_calls_write_an_arena_under_a_dump(tmp_path: Path) -> None:
    assert example("receiving.py", tmp_path).splitlines() == [
        "plain recv_into: Bad address",
        "received 4000 bytes; the dump is consistent",
        "and has the bytes from before",
    ]


def test_one_array_is_loaded_without_the_rest(tmp_path: Path) -> None:
    found = re.fullmatch(r"30 MiB, of which (\d+) MiB were read: 99.0\n", said := example(
        "one_array.py", tmp_path
    ))  # fmt: skip
    assert found and int(found[1]) < 15, said


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_read_an_array(method: str) -> None:
    assert example("children.py", method) == (
        f"{method}: 4 rows by two processes, without a copy\n"
    )


def test_tensors_are_dumped(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    assert example("tensors.py", tmp_path) == "the dump has the weights from before the step\n"


def test_an_emulators_guest_is_dumped_while_it_runs(tmp_path: Path) -> None:
    """The program itself compares what the dump comes to with what its guest came to."""
    said = example("emulator.py", tmp_path)
    found = re.fullmatch(
        r"dumped in round (\d+) of 3000000; run on from there it ends alike\n", said
    )
    assert found and int(found[1]) <= 3_000_000
    with Arena.load(tmp_path / "emulator.elf") as arena:
        assert arena.arrays["registers"][1] == int(found[1])


def test_the_first_dump_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(
        r"the dump is of one instant: True; the program went on by \d+ steps\n",
        example("first_dump.py"),
    )


@pytest.fixture
def livedump_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / ".bin"
    tools.mkdir()
    (tools / "livedump").symlink_to(EXAMPLES.parent / "scripts" / "livedump")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("LIVEDUMP_PYTHON", sys.executable)


def test_a_schedule_keeps_the_newest_dumps(
    livedump_on_path: None, run_host: Callable[..., Any], tmp_path: Path
) -> None:
    del livedump_on_path
    host, store = run_host(), tmp_path / "store"
    words = ("--every", "0.1", "--count", "3", "--keep", "2", store, "--device", host.device)
    assert example("schedule.py", *words) == ""
    with open_store(str(store)) as found:
        assert len(list(found.names())) == 2


def test_a_schedule_forgets_nothing_when_a_dump_fails(
    livedump_on_path: None, tmp_path: Path
) -> None:
    del livedump_on_path
    done = subprocess.run(
        [
            sys.executable, EXAMPLES / "schedule.py", "--count", "1", tmp_path / "store",
            "--device", tmp_path / "none",
        ],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == "no good dump this time (exit code 1); nothing is forgotten\n"
    assert not (tmp_path / "store").exists()
