# SPDX-License-Identifier: GPL-2.0-or-later
"""One array is loaded out of what was saved, whatever it was saved as."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livedumpfs import Arena, DumpSettings, InconsistentDump, LiveDump, load_array
from livedumpfs.errors import InvalidDump, UsageError

MIB = 1 << 20


def is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(getattr(array, "obj", array), mmap.mmap)


@pytest.mark.parametrize("name", ["state.elf", "state.raw", "state.kdump", "state.zarr"])
def test_the_array_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with Arena(4 * MIB) as arena:
        big = arena.from_array(np.arange(MIB // 4, dtype="f8"), name="big")
        arena.from_array(np.arange(3, dtype=">u2"), name="small")
        arena.zeros(MIB // 8, name="hole")
        settings: Any = DumpSettings()
        if path.suffix != ".zarr":
            settings = DumpSettings(format=path.suffix[1:])  # type: ignore[arg-type]
        LiveDump(arena).save(path, settings)
        found = load_array(path, "big")
        assert np.array_equal(found, big) and not load_array(str(path), "hole").any()
    assert load_array(path, "small").tolist() == [0, 1, 2]
    assert is_mapped(found) is (name in ("state.elf", "state.raw"))
    found[0] = 7.0
    assert load_array(path, "big")[0] == 0.0
    with pytest.raises(UsageError) as caught:
        load_array(path, "none")
    assert str(caught.value) == f"{path} has no array named 'none' (it has big, small, hole)"


def test_what_is_not_consistent_is_refused(tmp_path: Path) -> None:
    """A dump that was broken off has none of an array that was not swept."""
    path = tmp_path / "dump"
    with Arena(MIB) as arena:
        arena.from_array(np.arange(9), name="x")
        with LiveDump(arena) as dump:
            dump.init(path)
            dump.start()
    path = tmp_path / "dump.incomplete"
    with pytest.raises(InconsistentDump, match="incomplete"):
        load_array(path, "x")
    with pytest.raises(OSError, match=r"page 0x0 of .* was not saved"):
        load_array(path, "x", check=False)
    path.write_bytes(b"no dump at all")
    with pytest.raises(InvalidDump):
        load_array(path, "x")
    with pytest.raises(OSError, match="nothing: No such file"):
        load_array(tmp_path / "nothing", "x")
