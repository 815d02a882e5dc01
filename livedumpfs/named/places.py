# SPDX-License-Identifier: GPL-2.0-or-later
"""Places of arrays, by their names. Loads nothing: each save of a dump asks."""

from __future__ import annotations

import os
from typing import Final, TypeGuard

ZARR: Final = ".zarr"
ICECHUNK: Final = ".icechunk"
_BETWEEN: Final = "://"


def is_for_arrays(path: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a target is a Zarr group or an Icechunk repository, by how its name ends."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    text = os.fspath(path)
    return isinstance(text, str) and text.rstrip("/").endswith((ZARR, ICECHUNK))


def is_icechunk(path: str) -> bool:
    """An Icechunk repository, of those that are for arrays."""
    return path.rstrip("/").endswith(ICECHUNK)


def is_object_store(path: str) -> bool:
    """A URL, such as s3://bucket/prefix/state.zarr."""
    return _BETWEEN in path
