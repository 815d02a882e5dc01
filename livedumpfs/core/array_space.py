# SPDX-License-Identifier: GPL-2.0-or-later
"""ArraySpace: bytes in which arrays are placed, one behind the other."""

from __future__ import annotations

import math
import operator
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from livedumpfs.closing import Closing
from livedumpfs.core.array_info import ArrayInfo, checked_dims
from livedumpfs.core.state import AnyState, as_array, leaves, rebuilt
from livedumpfs.errors import UsageError, WrongType
from livedumpfs.units import HOST_PAGE, format_size

_ALIGNMENT = 64
ArrayShape = int | Sequence[int]


def space_for(arrays: Iterable[npt.NDArray[Any]], used: int = 0) -> int:
    """Bytes of the smallest space that takes them, in this order, behind `used` bytes."""
    for one in arrays:
        used = _offset_behind(used, one.nbytes) + one.nbytes
    return used


def _offset_behind(used: int, size: int) -> int:
    # Large arrays start at a page, so no two of them share one. In an arena of huge pages they
    # may share one of 2 MiB, and a store into one then saves some of the other, too.
    alignment = HOST_PAGE if size >= HOST_PAGE else _ALIGNMENT
    return -(-used // alignment) * alignment


class ArraySpace(Closing):
    """Arrays in an Arena's memory. Each is an ordinary numpy array that stays where it is:

    - `x[:] = y`, `x += y` and `out=x` change it in place, and are dumped;
    - `x = x + y` makes a new array outside of the arena, which is not.
    """

    size: int
    live: npt.NDArray[np.uint8]

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[Any]] = {}
        self._named: list[ArrayInfo] = []
        self._used = 0

    @abstractmethod
    def _open(self) -> object:
        """UsageError: it is closed."""

    @property
    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """The named arrays, by name."""
        return dict(self._arrays)

    @property
    def named(self) -> Sequence[ArrayInfo]:
        """Places of the named arrays, in the order in which they were made."""
        return tuple(self._named)

    def array(
        self,
        dtype: npt.DTypeLike,
        shape: int | tuple[int, ...],
        *,
        name: str | None = None,
        dims: Sequence[str] | None = None,
    ) -> npt.NDArray[Any]:
        """A new array of zeros over the live view. One with a name is listed in dumps, with the
        names of its dimensions, `dims`: those of one arena that have one name have one length.

        UsageError (ValueError): the dtype holds Python objects; a named array has no bytes; the
        name is empty or taken; the dims do not fit the shape, or another array; the arena is full.
        WrongType (TypeError): a name is not a str.
        """
        self._open()
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise UsageError(f"an arena cannot hold Python objects (dtype {kind})")
        self._check_name(name)
        if name is not None and kind.itemsize == 0:
            raise UsageError(f"an array of dtype {kind} holds nothing that a dump could list")
        dimensions = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        named = checked_dims(name, dims, dimensions, self._named)
        return self._place(kind, dimensions, self._allocate(kind, dimensions), name, named)

    def _check_name(self, name: object) -> None:
        """Any text is allowed: dumps list names, but never use them as file names."""
        if name is None:
            return
        if not isinstance(name, str):
            raise WrongType(f"an array's name must be text, not {type(name).__name__}")
        if not name:
            raise UsageError("an array's name cannot be empty", hint="None: it gets none")
        if name in self._arrays:
            raise UsageError(f"the arena has an array named {name!r} already")

    def _allocate(self, kind: np.dtype[Any], shape: tuple[int, ...]) -> int:
        size = math.prod(shape) * kind.itemsize
        offset = _offset_behind(self._used, size)
        if min(shape, default=0) < 0 or offset + size > self.size:
            raise UsageError(
                f"no room for {format_size(size)} in the arena: "
                f"{format_size(max(0, self.size - offset))} of {format_size(self.size)} are free"
            )
        self._used = offset + size
        return offset

    def _place(
        self,
        kind: np.dtype[Any],
        shape: tuple[int, ...],
        offset: int,
        name: str | None,
        dims: tuple[str, ...] | None,
    ) -> npt.NDArray[Any]:
        size = math.prod(shape) * kind.itemsize
        made: npt.NDArray[Any] = self.live[offset : offset + size].view(kind).reshape(shape)
        if name is not None:
            self._arrays[name] = made
            self._named.append(ArrayInfo(name, kind, shape, offset, dims))
        return made

    def zeros(
        self,
        shape: ArrayShape,
        dtype: npt.DTypeLike = np.float64,
        *,
        name: str | None = None,
        dims: Sequence[str] | None = None,
    ) -> npt.NDArray[Any]:
        """As numpy.zeros, in the arena; name, dims and errors as `array`. ::

        heat = arena.zeros((1000, 1000), "f4", name="heat", dims=("y", "x"))
        """
        return self.array(dtype, _as_tuple(shape), name=name, dims=dims)

    def empty(
        self,
        shape: ArrayShape,
        dtype: npt.DTypeLike = np.float64,
        *,
        name: str | None = None,
        dims: Sequence[str] | None = None,
    ) -> npt.NDArray[Any]:
        """As numpy.empty. It holds zeros, as all new memory of an arena, and takes memory only
        where it is written."""
        return self.array(dtype, _as_tuple(shape), name=name, dims=dims)

    def like(
        self,
        other: npt.NDArray[Any],
        *,
        name: str | None = None,
        dims: Sequence[str] | None = None,
    ) -> npt.NDArray[Any]:
        """As numpy.zeros_like: shape and dtype of `other`, which may lie anywhere, without its
        values."""
        there = as_array(other, name)
        return self.array(there.dtype, there.shape, name=name, dims=dims)

    def from_array(
        self, values: npt.ArrayLike, *, name: str | None = None, dims: Sequence[str] | None = None
    ) -> npt.NDArray[Any]:
        """A copy of the values in the arena, in C order: of an array, a list, a number. UsageError:
        as `array`; the array is masked."""
        there = as_array(values, name)
        made = self.array(there.dtype, there.shape, name=name, dims=dims)
        made[...] = there
        return made

    def place(self, state: AnyState) -> AnyState:
        """A copy of the state whose arrays and numbers lie in the arena. ::

        @dataclass
        class Simulation:
            heat: np.ndarray
            step: int
            moments: dict[str, np.ndarray]

        now = arena.place(Simulation(np.zeros((1000, 1000)), 0, {"m": np.zeros(9)}))
        now.heat[:] += 1.0  # the arrays "heat", "step" and "moments.m" are in each dump
        now.step += 1

        `state`: dicts, dataclasses, lists and tuples of arrays and numbers, in each other. A number
        becomes an array without dimensions, which `+=` and `[...] =` change in place. Text and None
        stay as they are, and are not dumped. An array that is in it twice becomes two.
        Arena.of(state) makes an arena that is large enough.

        UsageError: it holds anything else, or a name that the arena has already, or more than there
        is room for. Then nothing was placed.
        """
        self._open()
        found = list(leaves(state))
        seen: set[str] = set()
        for name, value in found:
            self._check_name(name)
            if name in seen:
                raise UsageError(f"two parts of the state have one name: {name!r}")
            if value.dtype.itemsize == 0:
                raise UsageError(f"array {name!r} of dtype {value.dtype} holds nothing")
            seen.add(name)
        end = space_for((value for _, value in found), self._used)
        if end > self.size:
            raise UsageError(
                f"no room for the state, {format_size(end - self._used)}: "
                f"{format_size(self.size - self._used)} of {format_size(self.size)} are free",
                hint="Arena.of(state) makes an arena that is large enough",
            )
        return rebuilt(state, lambda name, value: self.from_array(value, name=name))

    def find(self, template: AnyState) -> AnyState:
        """The arena's own arrays in the shape of a state: after Arena.load, what `place` returned
        before. `template`: a state whose arrays have the right shapes and dtypes; their values do
        not matter. UsageError: the arena lacks one, or has it with another shape or dtype."""
        return rebuilt(template, self._find)

    def _find(self, name: str, like: npt.NDArray[Any]) -> npt.NDArray[Any]:
        there = self._arrays.get(name)
        if there is None:
            has = ", ".join(self._arrays) or "none"
            raise UsageError(f"the arena has no array named {name!r}: it has {has}")
        if (there.shape, there.dtype) != (like.shape, like.dtype):
            raise UsageError(
                f"array {name!r} has shape {there.shape} and dtype {there.dtype} in the arena, and "
                f"{like.shape} and {like.dtype} in the state"
            )
        return there


def _as_tuple(shape: ArrayShape) -> tuple[int, ...]:
    return tuple(shape) if isinstance(shape, Sequence) else (operator.index(shape),)
