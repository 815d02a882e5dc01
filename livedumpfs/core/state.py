# SPDX-License-Identifier: GPL-2.0-or-later
"""A program's state in its own shape: dicts, dataclasses, lists and tuples of arrays and numbers,
in each other. Arrays are named by the way to them, with points: "optimizer.moments.0"."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from livedumpfs.errors import UsageError

AnyState = TypeVar("AnyState")
Leaf = npt.NDArray[Any]
_LEAVES = (np.ndarray, np.generic, bool, int, float, complex)
_KEPT = (str, bytes, type(None))


def rebuilt(state: AnyState, made: Callable[[str, Leaf], Leaf]) -> AnyState:
    """The same shape, with `made(name, array)` in the place of each array and number; a number
    comes as an array without dimensions. Text and None stay as they are. UsageError: it holds
    anything else."""
    found: AnyState = _rebuilt(state, made, "")
    return found


def leaves(state: object) -> Iterator[tuple[str, Leaf]]:
    """Name and value of each array and number, in order. UsageError: see rebuilt."""
    found: list[tuple[str, Leaf]] = []

    def note(name: str, value: Leaf) -> Leaf:
        found.append((name, value))
        return value

    rebuilt(state, note)
    return iter(found)


def _rebuilt(value: Any, made: Callable[[str, Leaf], Leaf], name: str) -> Any:
    if isinstance(value, _LEAVES) and name:
        return made(name, as_array(value, name))
    if isinstance(value, Mapping):
        checked = _checked_keys(value, name)
        return {key: _rebuilt(value[key], made, _below(name, key)) for key in checked}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _of_dataclass(value, made, name)
    if isinstance(value, list | tuple):
        fields = getattr(value, "_fields", None)  # of a named tuple
        keys = fields or map(str, range(len(value)))
        items = [
            _rebuilt(one, made, _below(name, key)) for key, one in zip(keys, value, strict=True)
        ]
        return type(value)(*items) if fields else type(value)(items)
    if isinstance(value, _KEPT) and name:
        return value
    raise UsageError(
        f"{name or 'the state'} is of type {type(value).__name__}: a state holds arrays and "
        "numbers, in dicts, dataclasses, lists and tuples"
    )


def _of_dataclass(value: Any, made: Callable[[str, Leaf], Leaf], name: str) -> Any:
    """A copy, and not a call of the class: that would compute its fields once more."""
    found = copy.copy(value)
    for field in dataclasses.fields(value):
        new = _rebuilt(getattr(value, field.name), made, _below(name, field.name))
        object.__setattr__(found, field.name, new)  # a frozen one, too
    return found


def _checked_keys(value: Mapping[Any, Any], name: str) -> list[str]:
    for key in value:
        if not isinstance(key, str) or not key:
            raise UsageError(f"{name or 'the state'} has the key {key!r}: keys must be text")
    return list(value)


def _below(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def as_array(value: object, name: str | None = None) -> Leaf:
    """As numpy's asarray. UsageError: an arena cannot hold it."""
    what = f"array {name!r}" if name else "the array"
    if isinstance(value, np.ma.MaskedArray):
        raise UsageError(f"{what} is masked", hint="place its data and its mask, an array each")
    found = np.asarray(value)
    if found.dtype.hasobject:
        raise UsageError(f"{what} holds Python objects (dtype {found.dtype}), an arena cannot")
    return found
