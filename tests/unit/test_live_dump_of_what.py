# SPDX-License-Identifier: GPL-2.0-or-later
"""What LiveDump can be of, and what the refusal of anything else says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.errors import UsageError
from livedumpfs.machines import ThreadMachine


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena("64KiB") as arena:
        yield arena


def test_an_arena_and_a_machine(arena: Arena, tmp_path: Path) -> None:
    for number, of in enumerate((arena, ThreadMachine(arena))):
        assert LiveDump(of).save(tmp_path / str(number)) == "consistent"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros(3), "not an array: only memory of an arena can be dumped (make the array by"),
        (b"bytes", "not bytes (Arena(...) is memory"),
        ([1, 2], "not list"),
        ("64MiB", "not str"),
        (None, "not NoneType"),
        (Arena, "not the class Arena"),
        (ThreadMachine, "not the class ThreadMachine"),
        (memoryview(b"x"), "not memoryview"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused_with_what_to_do(given: Any, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        LiveDump(given)
    assert isinstance(caught.value, UsageError)
    assert "LiveDump takes an arena or a machine, " in str(caught.value)
    assert words in str(caught.value)


def test_an_array_of_an_arena_means_that_arena(arena: Arena) -> None:
    """It is not the whole memory that a dump is of."""
    with pytest.raises(TypeError, match="give LiveDump the arena"):
        LiveDump(arena.array("u1", 10))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["quiesce", "resume"])
def test_callbacks_are_functions(arena: Arena, name: str) -> None:
    wrong: Any = {name: "stop"}
    with pytest.raises(TypeError, match=f"{name} must be a function, not str"):
        LiveDump(arena, **wrong)
    right: Any = {name: lambda: None}
    with pytest.raises(UsageError, match="a machine has its own"):
        LiveDump(ThreadMachine(arena), **right)


def test_nothing_is_saved_without_a_target(arena: Arena) -> None:
    live, nothing = LiveDump(arena), None
    with pytest.raises(UsageError, match="save needs a target"):
        live.save(nothing)  # type: ignore[arg-type]
    assert live.state.name == "UNINIT"
