# SPDX-License-Identifier: GPL-2.0-or-later
"""Content of a machine's memory as a server has it: files in its page cache, heaps, random bytes,
and pages that were never written.

The files are programs, libraries, manuals and source text of this computer, each from a page
boundary on, as a page cache has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from livedumpfs.units import PAGE_SIZE, align_up

SHARES: Final = {"files": 0.40, "heaps": 0.20, "random": 0.10, "freed": 0.05}
"""Of the memory; the rest is never written. Freed pages are those of heaps again."""
_PLACES: Final = ("/usr/lib", "/usr/bin", "/usr/share", "/usr/include")
_PIECE: Final = 16 << 20
_SEED: Final = 20261129


def fill_mixed(memory: npt.NDArray[np.uint8]) -> None:
    """Fill it; the bytes are the same each time on the same computer."""
    rng = np.random.default_rng(_SEED)
    at = _files(memory, int(len(memory) * SHARES["files"]))
    heap = at
    at = _heaps(memory, at, int(len(memory) * SHARES["heaps"]), rng)
    at = _random(memory, at, int(len(memory) * SHARES["random"]), rng)
    freed = int(len(memory) * SHARES["freed"]) // PAGE_SIZE * PAGE_SIZE
    memory[at : at + freed] = memory[heap : heap + freed]


def _files(memory: npt.NDArray[np.uint8], wanted: int) -> int:
    at = 0
    for path in _paths():
        data = np.fromfile(path, np.uint8)[: wanted - at]
        memory[at : at + len(data)] = data
        at = align_up(at + len(data), PAGE_SIZE)
        if at >= wanted:
            break
    return at


def _paths() -> Iterator[Path]:
    for place in _PLACES:
        for folder, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                    yield path


def _heaps(memory: npt.NDArray[np.uint8], at: int, wanted: int, rng: np.random.Generator) -> int:
    """Words of which a half are small numbers, a quarter pointers into one region, a quarter
    zero."""
    end = at + wanted // PAGE_SIZE * PAGE_SIZE
    for start in range(at, end, _PIECE):
        count = min(_PIECE, end - start) // 8
        words = rng.integers(0, 1 << 16, count, dtype=np.uint64)
        words[1::4] = 0x7F00_0000_0000 + (rng.integers(0, 1 << 26, len(words[1::4])) << 4)
        words[3::4] = 0
        memory[start : start + 8 * count] = words.view(np.uint8)
    return end


def _random(memory: npt.NDArray[np.uint8], at: int, wanted: int, rng: np.random.Generator) -> int:
    end = at + wanted // PAGE_SIZE * PAGE_SIZE
    for start in range(at, end, _PIECE):
        size = min(_PIECE, end - start)
        memory[start : start + size] = np.frombuffer(rng.bytes(size), np.uint8)
    return end
