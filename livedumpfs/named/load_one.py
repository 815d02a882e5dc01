# SPDX-License-Identifier: GPL-2.0-or-later
"""One array out of what was saved, whatever it was saved as."""

from __future__ import annotations

import os
from typing import Any

import numpy.typing as npt

from livedumpfs.core.saved_arena import inconsistent_arena
from livedumpfs.dumpfile import DumpFile, open_dump
from livedumpfs.errors import UsageError
from livedumpfs.named.places import is_for_arrays
from livedumpfs.named.saved_group import SavedGroup, open_arrays


def open_any(path: str) -> DumpFile | SavedGroup:
    """A dump, or a group of arrays, by what its path ends with. What opening each raises."""
    return open_arrays(path) if is_for_arrays(path) else open_dump(path)


def load_array(path: str | os.PathLike[str], name: str, *, check: bool = True) -> npt.NDArray[Any]:
    """The array of that name, and nothing else of what was saved there. ::

        heat = load_array("state.elf", "heat")  # takes no memory yet, whatever its size
        print(heat[500, 500])  # reads one page

    One of 1 MiB or more, in an `elf` or `raw` dump, is mapped into memory: a page of it is read
    when it is used. Of other formats, and of groups (.zarr, .icechunk), that array alone is read,
    now.
    What is stored into it stays in this process. A mapped array needs the file as it is: do not
    write the next dump over it, but to another name.

    `check`: refuse a dump that is not consistent. InconsistentDump (OSError): it is torn or
    incomplete; with check=False an array that is there as a whole is returned. UsageError
    (ValueError): no array of that name. OSError: the file cannot be read; EIO: some of the array is
    lost.
    """
    where = os.fspath(path)
    with open_any(where) as saved:
        if check and saved.verdict != "consistent":
            raise inconsistent_arena(saved, saved.missing())
        names = [one.name for one in saved.arrays]
        if name not in names:
            has = ", ".join(names) or "no named arrays"
            raise UsageError(f"{where} has no array named {name!r}", hint=f"it has {has}")
        return saved.array(name)
