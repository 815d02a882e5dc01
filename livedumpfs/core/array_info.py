# SPDX-License-Identifier: GPL-2.0-or-later
"""ArrayInfo: where a named array lies in its arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from livedumpfs.errors import UsageError, WrongType


@dataclass(frozen=True)
class ArrayInfo:
    """The place of a named array in the arena; `offset` in bytes from the arena's start."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    dims: tuple[str, ...] | None = None
    """Names of its dimensions; None: they have none."""

    def describe(self) -> dict[str, object]:
        """The array in JSON types, for the dump's notes. A structured dtype is written as numpy's
        `descr`, any other as its `str`."""
        plain = self.dtype.names is None
        found: dict[str, object] = {
            "name": self.name,
            "dtype": self.dtype.str if plain else self.dtype.descr,
            "shape": list(self.shape),
            "offset": self.offset,
        }
        return found if self.dims is None else {**found, "dims": list(self.dims)}


class SavedArray(Protocol):
    """A named array as a dump lists it."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def offset(self) -> int: ...
    @property
    def dims(self) -> tuple[str, ...] | None: ...


def checked_dims(
    name: str | None,
    dims: Sequence[str] | None,
    shape: tuple[int, ...],
    others: Sequence[ArrayInfo],
) -> tuple[str, ...] | None:
    """Names of the dimensions of a new array beside those of others, which have them, too. Raises
    as Arena.array says."""
    if dims is None:
        return None
    if isinstance(dims, str) or not all(isinstance(one, str) for one in dims):
        raise WrongType("dims must be a sequence of names")
    if name is None:
        raise UsageError("only an array with a name can have dims")
    if len(dims) != len(shape) or len(set(dims)) != len(dims) or not all(dims):
        raise UsageError(
            f"dims of array {name!r} must be {len(shape)} different names, not {tuple(dims)!r}"
        )
    lengths = {
        one: (length, other.name)
        for other in others
        for one, length in zip(other.dims or (), other.shape, strict=False)
    }
    for one, length in zip(dims, shape, strict=True):
        there, other_name = lengths.get(one, (length, ""))
        if there != length:
            raise UsageError(
                f"dimension {one!r} has {length} elements in array {name!r}, and {there} in "
                f"{other_name!r}"
            )
    return tuple(dims)
