# SPDX-License-Identifier: GPL-2.0-or-later
"""Arrays and whole states are placed in an arena, and found again after a load."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from livedumpfs import Arena, LiveDump
from livedumpfs.errors import UsageError
from livedumpfs.units import HOST_PAGE

MIB = 1 << 20
LEAST = {4096: 13 * 4096}.get(HOST_PAGE, 65536)
"""Of the arrays of test_the_arena_of_a_state_is_just_large_enough."""


class Moments(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True, slots=True)
class Frozen:
    bias: Any


@dataclass
class State:
    weights: Any
    step: Any
    moments: Moments
    rest: dict[str, Any]
    made: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.made = ["by the class"]


def fresh() -> State:
    rest = {"rate": 0.5, "frozen": Frozen(np.arange(3)), "layers": [np.ones(2), (np.zeros(1),)]}
    named = {**rest, "name": "of a run", "none": None}
    return State(np.arange(6.0).reshape(2, 3), 7, Moments(np.zeros(4), np.ones(4)), named)


NAMES = [
    *("weights", "step", "moments.first", "moments.second", "rest.rate", "rest.frozen.bias"),
    *("rest.layers.0", "rest.layers.1.0"),
]


def test_a_state_has_the_shape_that_it_had(tmp_path: Path) -> None:
    arena, now = Arena.of(fresh())
    with arena:
        assert list(arena.arrays) == NAMES
        assert type(now) is State and type(now.moments) is Moments
        assert type(now.rest["frozen"]) is Frozen and type(now.rest["layers"][1]) is tuple
        assert now.made == ["by the class"] and now.rest["name"] == "of a run"
        assert now.rest["none"] is None
        now.step += 1
        now.rest["rate"] *= 2
        now.weights[:] = 3.0
        LiveDump(arena).save(tmp_path / "dump")
        now.step += 1
    with Arena.load(tmp_path / "dump") as loaded:
        found = loaded.find(fresh())
        assert (found.step, found.rest["rate"], found.weights[1, 2]) == (8, 1.0, 3.0)
        assert found.weights is loaded.arrays["weights"]
        with pytest.raises(UsageError, match=r"'weights' has shape \(2, 3\) .* \(4,\) and"):
            loaded.find({"weights": np.zeros(4)})
        with pytest.raises(UsageError, match=r"no array named 'gone': it has weights, step"):
            loaded.find({"gone": np.zeros(4)})


def test_the_arena_of_a_state_is_just_large_enough() -> None:
    values = {"a": np.zeros(3), "b": np.zeros(5000), "c": np.zeros(1), "d": np.zeros(513)}
    arena, _ = Arena.of(values)
    with arena:
        assert arena.size == LEAST
        with pytest.raises(UsageError, match="no room"):
            arena.zeros(8192)
    arena, _ = Arena.of(values, room="1MiB")
    with arena:
        assert arena.size == LEAST + MIB
        assert arena.zeros((64, 1024)).shape == (64, 1024)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (np.zeros(3), "the state is of type ndarray: a state holds"),
        ({"f": print}, "f is of type builtin_function_or_method"),
        ({"a": {"b": object()}}, "a.b is of type object"),
        ({"a": {"": 1}}, "a has the key '': keys must be text"),
        ({3: 1}, "the state has the key 3"),
        ({"a": {"b": 1}, "a.b": 2}, "two parts of the state have one name: 'a.b'"),
        ({"taken": 1}, "an array named 'taken' already"),
        ({"o": np.array([None])}, "array 'o' holds Python objects"),
        ({"m": np.ma.masked_array([1, 2], [0, 1])}, "'m' is masked"),
        ({"v": np.zeros(3, "V0")}, "holds nothing"),
        ({"n": 1 << 70}, "array 'n' holds Python objects"),
        ({"a": 1, "big": np.zeros(MIB)}, "no room for the state, 8.0"),
    ],
)
def test_a_state_that_is_refused_has_placed_nothing(state: Any, said: str) -> None:
    with Arena(MIB) as arena:
        arena.zeros(4, name="taken")
        with pytest.raises(UsageError) as caught:
            arena.place(state)
        assert said in str(caught.value)
        assert list(arena.arrays) == ["taken"]
        assert arena.zeros(4, name="next").ctypes.data - arena.address == 64


def test_arrays_are_made_as_numpy_makes_them() -> None:
    with Arena(MIB) as arena:
        there = np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3))
        made = arena.from_array(there, name="x", dims=("a", "b"))
        assert made.flags.c_contiguous and made.dtype == ">i2" and np.array_equal(made, there)
        assert arena.named[0].dims == ("a", "b")
        alike = arena.like(there)
        assert (alike.shape, alike.dtype) == (there.shape, there.dtype) and not alike.any()
        assert arena.zeros(np.int64(3)).shape == (3,) and arena.zeros([2, 3]).shape == (2, 3)
        assert arena.empty((), "f4").shape == () and arena.zeros(3).dtype == np.float64
        assert arena.from_array([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
        assert list(arena.arrays) == ["x"]
        for offset in (arena.offset_of(made), arena.offset_of(made[1:])):
            assert arena.read(offset, 2) in (b"\0\0", b"\0\3")
